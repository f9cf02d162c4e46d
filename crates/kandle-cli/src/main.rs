//! `kandle` on the command line: one file a verb, and here they are told apart.

mod bench;
mod convert;
mod diff;
mod infer;
mod inspect;
mod modules;
mod npy;
mod rows;
mod source;
mod tensors;
mod terminal;
mod verify;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What stops a verb: it is printed as `error: …`, and the exit code is 1.
type Failure = kandle::parity::Failure;

/// Opens what Keras saved and runs it on candle, with proof that the numbers are the same.
///
/// kandle reads what Keras 1, 2 and 3 saved as it is, .keras files and folders, legacy .h5 files, weights and architectures: no
/// Python, no conversion. What it cannot reproduce exactly it refuses, by layer, key and value.
///
/// Exit codes: 0 all is well, 1 it is not (the reason is on stderr), 2 the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "kandle", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Inspect(inspect::Args),
    Verify(verify::Args),
    Infer(infer::Args),
    Convert(convert::Args),
    Diff(diff::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Infer(args) => infer::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the output has stopped, as in `kandle verify … | head`: there is nobody to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            terminal::complain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &Failure) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
