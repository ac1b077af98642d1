//! The limits that a room runs under, which travel with it.

use super::{
    SnapshotError,
    bytes::{Malformed, Reader, Writer},
};
use crate::limits::Limits;

/// A limit as a number. None is the greatest.
trait Limit: Sized {
    fn to_number(self) -> u64;
    fn from_number(number: u64) -> Option<Self>;
}

impl Limit for usize {
    fn to_number(self) -> u64 {
        self as u64
    }

    fn from_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Limit for u64 {
    fn to_number(self) -> u64 {
        self
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl Limit for Option<u64> {
    fn to_number(self) -> u64 {
        self.unwrap_or(u64::MAX)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some((number < u64::MAX).then_some(number))
    }
}

/// All limits, in the order of the format, and whether a guest can observe them.
macro_rules! limits {
    ($($name:ident: $is_observable:literal),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        const IS_OBSERVABLE: &[bool] = &[$($is_observable),*];

        fn numbers(limits: &Limits) -> [u64; NAMES.len()] {
            let Limits { $($name),* } = *limits;
            [$($name.to_number()),*]
        }

        fn from_numbers(numbers: &[u64; NAMES.len()]) -> Option<Limits> {
            let mut numbers = numbers.iter();
            Some(Limits { $($name: Limit::from_number(*numbers.next()?)?),* })
        }
    };
}

limits! {
    max_module_bytes: false,
    max_memory_bytes: true,
    max_table_elements: true,
    max_instance_bytes: false,
    max_function_locals: false,
    max_stack_bytes: true,
    max_recursion_depth: true,
    max_fuel_per_event: true,
    fuel_per_slice: false,
    max_message_bytes: true,
    max_inbox_events: false,
    max_inbox_bytes: false,
    max_outbox_messages: true,
    max_outbox_bytes: true,
    max_clients: false,
    max_room_id_bytes: false,
    max_log_bytes_per_event: false,
    max_log_bytes_per_second: false,
}

impl Limits {
    /// # Errors
    ///
    /// If a guest could observe that these limits are not those that it ran under.
    pub(crate) fn check_same_for_guest(&self, saved: &Self) -> Result<(), SnapshotError> {
        let all = NAMES.iter().zip(IS_OBSERVABLE);
        for ((name, is_observable), (saved, loaded)) in
            all.zip(numbers(saved).into_iter().zip(numbers(self)))
        {
            if *is_observable && saved != loaded {
                return Err(SnapshotError::Limits {
                    name,
                    saved,
                    loaded,
                });
            }
        }
        Ok(())
    }

    /// The limits that are not the default, or not the small one, whichever are fewer.
    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        let numbers = numbers(self);
        let differences = |base: &[u64]| {
            (0..numbers.len())
                .filter(|i| numbers[*i] != base[*i])
                .fold(0_u64, |mask, i| mask | 1 << i)
        };
        let masks = BASES.map(|base| differences(&self::numbers(&base)));
        let is_small = masks[1].count_ones() < masks[0].count_ones();
        let mask = masks[usize::from(is_small)];
        writer.flag(is_small);
        writer.number(mask);
        for (i, number) in numbers.iter().enumerate() {
            if mask >> i & 1 == 1 {
                writer.number(*number);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut numbers = numbers(&BASES[usize::from(reader.flag()?)]);
        let mask = reader.number()?;
        if mask >> numbers.len() != 0 {
            return Err(Malformed);
        }
        for (i, number) in numbers.iter_mut().enumerate() {
            if mask >> i & 1 == 1 {
                *number = reader.number()?;
            }
        }
        from_numbers(&numbers).ok_or(Malformed)
    }
}

/// What limits are compared with, to store the differences.
const BASES: [Limits; 2] = [Limits::new(), Limits::small()];
