//! What a link reads from and writes to.

/// Bytes in and bytes out, without waiting.
///
/// A UART of which one can ask whether a byte has come and whether there is place for one more is a
/// wire in a few lines; better is one whose interrupt fills a queue, since a UART by itself keeps but
/// a few bytes for whoever is busy.
///
/// ```
/// # struct Registers;
/// # impl Registers {
/// #     fn has_byte(&self) -> bool { false }
/// #     fn byte(&mut self) -> u8 { 0 }
/// #     fn has_place(&self) -> bool { false }
/// #     fn put(&mut self, byte: u8) {}
/// # }
/// struct Uart(Registers);
///
/// impl stateroom_wasmi_link::Wire for Uart {
///     type Error = core::convert::Infallible;
///
///     fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
///         let mut read = 0;
///         while read < bytes.len() && self.0.has_byte() {
///             bytes[read] = self.0.byte();
///             read += 1;
///         }
///         Ok(read)
///     }
///
///     fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
///         let mut written = 0;
///         while written < bytes.len() && self.0.has_place() {
///             self.0.put(bytes[written]);
///             written += 1;
///         }
///         Ok(written)
///     }
/// }
/// ```
pub trait Wire {
    /// What may go wrong.
    type Error;

    /// Reads what has come, as far as it fits; answers how many bytes, 0 if none have come.
    ///
    /// # Errors
    ///
    /// If the wire is broken. Bytes that were lost or damaged are no error: the link notices.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error>;

    /// Writes as many of the bytes as there is place for; answers how many, 0 if there is none.
    ///
    /// # Errors
    ///
    /// If the wire is broken.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error>;
}

impl<W: Wire + ?Sized> Wire for &mut W {
    type Error = W::Error;

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        (**self).read(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        (**self).write(bytes)
    }
}
