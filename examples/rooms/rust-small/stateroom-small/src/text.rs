//! A text of fixed capacity.

/// Up to `N` bytes of text. Excess is truncated at a character boundary.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// An empty text.
    pub const fn new() -> Self {
        Text {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Appends a number.
    pub fn push_number(&mut self, mut number: u32) -> &mut Self {
        let mut digits = [0; 10];
        let mut start = digits.len();
        while start == digits.len() || number > 0 {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        for digit in &digits[start..] {
            self.push(char::from(*digit).encode_utf8(&mut [0; 4]));
        }
        self
    }

    /// Appends a text.
    pub fn push(&mut self, text: &str) -> &mut Self {
        let mut end = text.len().min(N - self.len);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.len..self.len + end].copy_from_slice(&text.as_bytes()[..end]);
        self.len += end;
        self
    }

    pub fn as_str(&self) -> &str {
        // SAFETY: whole characters are pushed, and nothing else.
        unsafe { core::str::from_utf8_unchecked(&self.bytes[..self.len]) }
    }
}
