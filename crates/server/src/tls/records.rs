//! Counts TLS's records as they are received.

/// Counts records, from the first byte of a connection on.
#[derive(Debug, Default)]
pub(crate) struct RecordCounter {
    /// Bytes of the next record's header that were received.
    header: u8,
    /// The length in that header, as far as it was received.
    length: u16,
    /// Bytes of the present record that were not received yet.
    left: usize,
}

/// A record's header: its type, two bytes of version, and two of its length.
const HEADER_BYTES: u8 = 5;

impl RecordCounter {
    /// How many records' headers end in these bytes, which follow those of the last call.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut records = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            // Big endian.
            self.length = (self.length << 8) | u16::from(*first);
            self.header += 1;
            if self.header == HEADER_BYTES {
                self.left = self.length.into();
                self.header = 0;
                records += 1;
            }
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_cut() {
        let lengths = [0, 1, 300, 0, 16_640, 2];
        let mut bytes = Vec::new();
        for length in lengths {
            bytes.extend([23, 3, 3]);
            bytes.extend(u16::to_be_bytes(length));
            bytes.extend(vec![0xff; length.into()]);
        }
        for size in [1, 2, 4, 5, 7, 301, bytes.len()] {
            let mut counter = RecordCounter::default();
            let counts = bytes.chunks(size).map(|part| counter.count(part));
            assert_eq!(counts.sum::<usize>(), lengths.len(), "{size}");
        }
    }
}
