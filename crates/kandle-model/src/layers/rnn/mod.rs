//! Recurrent layers.

mod bidirectional;
mod cell;
mod conv_lstm;
mod gru;
mod lstm;
mod recurrent;
mod simple_rnn;
mod stacked_rnn_cells;
mod time_distributed;

use crate::{
    Fields,
    registry::{Family, Registered, layer},
};
use bidirectional::Bidirectional;
use cell::{Cell, CellLayer, InnerCell};
use conv_lstm::ConvLstmCell;
use gru::GruCell;
use lstm::LstmCell;
use recurrent::{Recurrent, RecurrentLayer};
use simple_rnn::SimpleRnnCell;
use stacked_rnn_cells::StackedRnnCells;
use time_distributed::TimeDistributed;

/// The layers of this folder, one line each.
pub(crate) const LAYERS: &[Registered] = &[
    layer::<RecurrentLayer<SimpleRnnCell>>("SimpleRNN", Family::Rnn),
    layer::<RecurrentLayer<LstmCell>>("LSTM", Family::Rnn),
    layer::<RecurrentLayer<GruCell>>("GRU", Family::Rnn),
    layer::<RecurrentLayer<InnerCell>>("RNN", Family::Rnn),
    layer::<CellLayer<SimpleRnnCell>>("SimpleRNNCell", Family::Rnn),
    layer::<CellLayer<LstmCell>>("LSTMCell", Family::Rnn),
    layer::<CellLayer<GruCell>>("GRUCell", Family::Rnn),
    layer::<CellLayer<StackedRnnCells>>("StackedRNNCells", Family::Rnn),
    layer::<RecurrentLayer<ConvLstmCell<1>>>("ConvLSTM1D", Family::Rnn),
    layer::<RecurrentLayer<ConvLstmCell<2>>>("ConvLSTM2D", Family::Rnn),
    layer::<RecurrentLayer<ConvLstmCell<3>>>("ConvLSTM3D", Family::Rnn),
    layer::<Bidirectional>("Bidirectional", Family::Rnn),
    layer::<TimeDistributed>("TimeDistributed", Family::Rnn),
];

type ReadCell = fn(&mut Fields<'_>) -> Box<dyn Cell>;
type ReadRecurrent = fn(&mut Fields<'_>) -> Recurrent;

/// How a cell of the class `class` is read.
fn cell_class(class: &str) -> Option<ReadCell> {
    Some(match class {
        "SimpleRNNCell" => |fields| Box::new(SimpleRnnCell::read(fields)),
        "LSTMCell" => |fields| Box::new(LstmCell::read(fields)),
        "GRUCell" => |fields| Box::new(GruCell::read(fields)),
        "StackedRNNCells" => |fields| Box::new(StackedRnnCells::read(fields)),
        _ => return None,
    })
}

/// How a recurrent layer of the class `class` is read.
fn recurrent_class(class: &str) -> Option<ReadRecurrent> {
    Some(match class {
        "SimpleRNN" => Recurrent::read::<SimpleRnnCell>,
        "LSTM" => Recurrent::read::<LstmCell>,
        "GRU" => Recurrent::read::<GruCell>,
        "RNN" => Recurrent::read::<InnerCell>,
        "ConvLSTM1D" => Recurrent::read::<ConvLstmCell<1>>,
        "ConvLSTM2D" => Recurrent::read::<ConvLstmCell<2>>,
        "ConvLSTM3D" => Recurrent::read::<ConvLstmCell<3>>,
        _ => return None,
    })
}
