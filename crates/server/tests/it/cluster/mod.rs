//! Rooms that go from node to node while their clients talk: no message is lost, none comes twice, and no
//! socket is closed.

mod clients;
mod figures;
mod former;
mod gateways;
mod leaves;
mod moving;
mod nodes;
mod poison;
