//! Block status: the device's map in the client's terms.

use blkmq_runtime::{Extent, ExtentKind};

use crate::nbd::AllocationExtent;

/// The most stretches that one block status reply is made of. A client asks on from where it ends.
pub(super) const EXTENTS_MAX: usize = 256;

/// The answer for a span of `span_bytes`, of which `extents` are the map from its beginning on; one
/// extent alone if `one` is asked for.
///
/// Extents that are alike are joined. An end that is no multiple of `min_bytes` is moved, so that
/// what holds any data counts as data.
pub(super) fn allocation(
    extents: &[Extent],
    span_bytes: u64,
    min_bytes: u32,
    one: bool,
) -> Vec<AllocationExtent> {
    let min_bytes = u64::from(min_bytes);
    let mut told = Told::default();
    let mut at = 0;
    for extent in extents {
        let end = (at + extent.len_bytes).min(span_bytes);
        let whole_from = at.next_multiple_of(min_bytes);
        let whole_to = end - end % min_bytes;
        if extent.kind != ExtentKind::Data && whole_from < whole_to {
            told.until(whole_from, ExtentKind::Data);
            told.until(whole_to, extent.kind);
        }
        at = end;
    }
    // An answer must tell something, and a map that tells nothing leaves data to be assumed.
    let end = if at == 0 { span_bytes } else { at.next_multiple_of(min_bytes).min(span_bytes) };
    told.until(end, ExtentKind::Data);
    if one {
        told.extents.truncate(1);
    }
    told.extents
}

/// What was said so far.
#[derive(Default)]
struct Told {
    extents: Vec<AllocationExtent>,
    end_bytes: u64,
}

impl Told {
    /// Says what lies between the end and `end_bytes`.
    fn until(&mut self, end_bytes: u64, kind: ExtentKind) {
        let Some(len_bytes) = end_bytes.checked_sub(self.end_bytes).filter(|len| *len > 0) else {
            return;
        };
        self.end_bytes = end_bytes;
        let (hole, zero) = (kind == ExtentKind::Hole, kind != ExtentKind::Data);
        match self.extents.last_mut() {
            Some(last) if (last.hole, last.zero) == (hole, zero) => last.len_bytes += len_bytes,
            _ => self.extents.push(AllocationExtent { len_bytes, hole, zero }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExtentKind::{Data, Hole, Zero};

    fn told(extents: &[(u64, ExtentKind)], span: u64, min: u32, one: bool) -> Vec<(u64, u32)> {
        let extents: Vec<Extent> = extents
            .iter()
            .map(|(len_bytes, kind)| Extent { len_bytes: *len_bytes, kind: *kind })
            .collect();
        let flags =
            |extent: &AllocationExtent| u32::from(extent.hole) | u32::from(extent.zero) << 1;
        let told = allocation(&extents, span, min, one);
        told.iter().map(|extent| (extent.len_bytes, flags(extent))).collect()
    }

    #[test]
    fn equal_neighbours_are_joined() {
        let map = [(4096, Data), (4096, Data), (8192, Hole), (512, Zero), (512, Zero)];
        assert_eq!(told(&map, 17408, 512, false), [(8192, 0), (8192, 3), (1024, 2)]);
        assert_eq!(told(&map, 17408, 512, true), [(8192, 0)]);
    }

    #[test]
    fn part_of_a_block_with_data_is_data() {
        let map = [(512, Data), (8192, Hole), (7680, Data)];
        assert_eq!(told(&map, 16384, 4096, false), [(4096, 0), (4096, 3), (8192, 0)]);
        assert_eq!(told(&[(512, Hole), (3584, Zero)], 4096, 4096, false), [(4096, 0)]);
    }

    #[test]
    fn the_answer_is_never_empty_nor_beyond_the_span() {
        assert_eq!(told(&[], 8192, 4096, false), [(8192, 0)]);
        assert_eq!(told(&[(512, Hole)], 8192, 4096, true), [(4096, 0)]);
        assert_eq!(told(&[(1 << 40, Hole)], 1 << 39, 512, false), [(1 << 39, 3)]);
    }
}
