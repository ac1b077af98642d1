//! The program that runs a service. The published traits are generic, and this is an object.

use stateroom_wasmi_host::OutputMessage;

/// A `StateroomContext`, of either version.
pub(crate) trait Context: Send + Sync {
    fn send(&self, message: OutputMessage<'_>);

    /// Replaces the timer by one that fires once, after this many milliseconds; zero is at once.
    fn set_timer(&self, ms_delay: u32);

    /// The timer is not to fire. If it does, its event is ignored.
    fn cancel_timer(&self);
}
