//! What an attached connection carries, both ways: one byte of kind, length as u32 little-endian, payload.

/// From the client: input.
pub(crate) const STDIN: u8 = 0;
/// To the client: output.
pub(crate) const STDOUT: u8 = 1;
/// To the client: error output.
pub(crate) const STDERR: u8 = 2;
/// From the client: end of input.
pub(crate) const STDIN_END: u8 = 3;
/// From the client: size of its terminal, rows and columns as u16 little-endian.
pub(crate) const SIZE: u8 = 4;

/// The head of a frame.
pub(crate) fn head(kind: u8, length: usize) -> [u8; 5] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [kind, a, b, c, d]
}
