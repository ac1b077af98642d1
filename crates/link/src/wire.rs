//! The byte stream below a link.

/// A byte stream with non-blocking reads and writes.
///
/// For a UART whose registers show whether a byte has arrived and whether another can be written,
/// this takes a few lines. Better is a driver whose interrupt or DMA fills a queue: the hardware
/// buffers a few bytes at most while the board runs a guest.
///
/// ```
/// # struct Registers;
/// # impl Registers {
/// #     fn has_byte(&self) -> bool { false }
/// #     fn read_byte(&mut self) -> u8 { 0 }
/// #     fn has_space(&self) -> bool { false }
/// #     fn write_byte(&mut self, byte: u8) {}
/// # }
/// struct Uart(Registers);
///
/// impl stateroom_wasmi_link::Wire for Uart {
///     type Error = core::convert::Infallible;
///
///     fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
///         let mut read = 0;
///         while read < bytes.len() && self.0.has_byte() {
///             bytes[read] = self.0.read_byte();
///             read += 1;
///         }
///         Ok(read)
///     }
///
///     fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
///         let mut written = 0;
///         while written < bytes.len() && self.0.has_space() {
///             self.0.write_byte(bytes[written]);
///             written += 1;
///         }
///         Ok(written)
///     }
/// }
/// ```
pub trait Wire {
    /// Why reading or writing failed.
    type Error;

    /// Reads available bytes into `bytes`, and returns their number; 0 if there are none now.
    ///
    /// # Errors
    ///
    /// If the wire cannot be used any more. Lost or damaged bytes, such as an overrun or a framing
    /// error of a UART, are not to be reported: the link detects and retransmits them.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error>;

    /// Writes as many of the bytes as fit now, and returns their number; 0 if none do.
    ///
    /// # Errors
    ///
    /// If the wire cannot be used any more.
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
