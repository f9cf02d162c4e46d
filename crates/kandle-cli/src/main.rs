//! kandle on the command line.
fn main() {}
