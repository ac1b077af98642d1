//! The rooms, the workers that run them, and their clients.

pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod handover;
mod tokens;
mod worker;
pub(crate) mod worker_pool;
