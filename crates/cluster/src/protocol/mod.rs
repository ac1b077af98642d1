//! Who owns which shard: state machines without I/O, which the tests simulate.
//!
//! What keeps rooms safe is the [`Appender`] alone: it writes to a shard's log only behind what it wrote
//! itself, so the first record of a new owner ends the old one, whatever either believes of time and of the
//! other. All else, which is [`Membership`], only makes that happen soon and seldom.

mod appender;
mod leaves;
mod membership;
mod needs;
mod pending;
mod placement;
mod suspects;
mod tails;

pub use self::{
    appender::{Appended, Appender, LastRecord, RecordId, Request},
    leaves::{LeafPing, Leaves},
    membership::{
        Action, CasResult, Membership, MembershipOptions, Owner, Peer, Phase, Placement, ShardState,
    },
    needs::Needs,
    pending::{Limits, Part, Pending},
    placement::{Load, relieve},
    suspects::{Gate, MAX_DEATHS, MAX_OPEN, Note, Suspects},
    tails::Tails,
};
