//! The rooms, the tasks that run them, and their clients.

pub(crate) mod clients;
pub(crate) mod command;
pub(crate) mod tokens;
pub(crate) mod worker;
pub(crate) mod worker_pool;
