//! Queues of payloads.

mod payload_queue;

pub(crate) use self::payload_queue::PayloadQueue;
