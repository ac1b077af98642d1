//! Queues of payloads with headers: one that grows, and one of a fixed capacity.

mod fixed_payload_queue;
mod payload_queue;

pub use self::fixed_payload_queue::{FixedPayloadQueue, QueueError};
pub(crate) use self::payload_queue::PayloadQueue;
