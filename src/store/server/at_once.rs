/// How many of something are asked of the server at once: half of what last took too long, for they may be large, and
/// the same ones again would take as long; and one more each time that it goes well.
#[derive(Debug)]
pub(in crate::store) struct AtOnce {
    count: usize,
    most: usize,
}

impl AtOnce {
    pub(in crate::store) fn new(most: usize) -> Self {
        Self { count: most, most }
    }

    pub(in crate::store) fn count(&self) -> usize {
        self.count
    }

    pub(in crate::store) fn went_well(&mut self) {
        self.count = (self.count + 1).min(self.most);
    }

    /// So many were too many.
    pub(in crate::store) fn failed(&mut self, count: usize) {
        self.count = (count / 2).max(1);
    }
}
