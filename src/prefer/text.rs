//! The bytes of a field, kept beside what was read from them.

use std::fmt;

/// How many bytes of a field are read, over all of its lines, each further line counting one byte more: 8 KiB, which is
/// as much as common servers accept of a field. A preference that goes on beyond them is dropped, with all that follows.
pub const MAX_FIELD_BYTES: usize = 8 * 1024;

/// How many members of a list are read, whether they turn out well-formed, malformed or repeated: 64. What follows them
/// is dropped as one.
pub const MAX_PREFERENCES: usize = 64;

/// Fields up to this length are stored without an allocation.
///
/// Copied, rather than shared with the header map: a short copy is as cheap as a reference count, it needs no
/// allocation either way round, and it does not keep a connection's read buffer alive for as long as an operation
/// lives.
pub(super) const INLINE: usize = 80;

/// Field lines with a line feed between them, which no field line contains.
#[derive(Clone)]
pub(super) struct Text {
    bytes: Bytes,
    cut: bool,
}

#[derive(Clone)]
enum Bytes {
    Inline { length: usize, bytes: [u8; INLINE] },
    Heap(Vec<u8>),
}

impl Text {
    /// Copies field lines up to [`MAX_FIELD_BYTES`].
    #[inline]
    pub(super) fn from_lines<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut text = Self::default();
        for (index, line) in lines.enumerate() {
            if index > 0 {
                text.push(b"\n");
            }
            let Some(room) = MAX_FIELD_BYTES.checked_sub(text.as_bytes().len()) else {
                text.cut = true;
                break;
            };
            if let Some((head, _)) =
                line.split_at_checked(room).filter(|(_, rest)| !rest.is_empty())
            {
                text.push(head);
                text.cut = true;
                break;
            }
            text.push(line);
        }
        text
    }

    #[inline]
    fn push(&mut self, more: &[u8]) {
        match &mut self.bytes {
            Bytes::Inline { length, bytes } => {
                let end = *length + more.len();
                if let Some(free) = bytes.get_mut(*length..end) {
                    free.copy_from_slice(more);
                    *length = end;
                } else {
                    let mut heap = Vec::with_capacity(end);
                    heap.extend_from_slice(bytes.get(..*length).unwrap_or_default());
                    heap.extend_from_slice(more);
                    self.bytes = Bytes::Heap(heap);
                }
            }
            Bytes::Heap(bytes) => bytes.extend_from_slice(more),
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Inline { length, bytes } => bytes.get(..*length).unwrap_or_default(),
            Bytes::Heap(bytes) => bytes,
        }
    }

    /// Whether there was more than [`MAX_FIELD_BYTES`].
    #[inline]
    pub(super) const fn is_cut(&self) -> bool {
        self.cut
    }
}

impl Default for Text {
    #[inline]
    fn default() -> Self {
        Self { bytes: Bytes::Inline { length: 0, bytes: [0; INLINE] }, cut: false }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}
