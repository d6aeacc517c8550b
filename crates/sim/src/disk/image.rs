//! The bytes of one simulated file: sparse, and cheap to clone, because clones
//! share their pages until one of them writes.

use std::rc::Rc;

/// Bytes in a page: the unit in which operations address a disk.
pub const PAGE_BYTES: usize = 4096;
/// Bytes in a sector: what a device writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// Sectors in a page.
pub(super) const PAGE_SECTORS: usize = PAGE_BYTES / SECTOR_BYTES;
/// Pages in a group: one word of allocation bits.
const GROUP_PAGES: u64 = 64;

/// One page of content.
pub(super) type Page = [u8; PAGE_BYTES];

/// A page's content; `None` reads as zeroes and takes no memory.
pub(super) type PageData = Option<Rc<Page>>;

#[derive(Clone)]
struct Group {
    pages: [PageData; GROUP_PAGES as usize],
    allocated: u64,
}

impl Group {
    fn empty() -> Self {
        Self { pages: [const { None }; GROUP_PAGES as usize], allocated: 0 }
    }
}

/// One file's content and which of its pages have space of their own.
#[derive(Clone, Default)]
pub(super) struct Image {
    groups: Vec<Option<Rc<Group>>>,
    bytes: u64,
    allocated_pages: u64,
}

impl Image {
    /// Length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the file at least `bytes` long.
    pub(super) fn extend_to(&mut self, bytes: u64) {
        self.bytes = self.bytes.max(bytes);
    }

    /// Pages that have space of their own.
    pub(super) fn allocated_pages(&self) -> u64 {
        self.allocated_pages
    }

    /// Content of page `number`; zeroes beyond the end.
    pub(super) fn page(&self, number: u64) -> PageData {
        let group = self.groups.get((number / GROUP_PAGES) as usize)?.as_ref()?;
        group.pages[(number % GROUP_PAGES) as usize].clone()
    }

    /// Whether page `number` has space of its own.
    pub(super) fn is_allocated(&self, number: u64) -> bool {
        match self.groups.get((number / GROUP_PAGES) as usize) {
            Some(Some(group)) => group.allocated & (1 << (number % GROUP_PAGES)) != 0,
            _ => false,
        }
    }

    /// Replaces the content of page `number`, which takes space for it.
    pub(super) fn set_page(&mut self, number: u64, data: PageData) {
        self.allocate(number);
        self.group_mut(number).pages[(number % GROUP_PAGES) as usize] = data;
    }

    /// Takes from `data` the sectors of page `number` whose bit is set in `sectors`.
    pub(super) fn set_sectors(&mut self, number: u64, data: &PageData, sectors: u8) {
        match sectors {
            0 => {}
            u8::MAX => self.set_page(number, data.clone()),
            _ => {
                let mut mixed = self.page(number).map_or([0; PAGE_BYTES], |page| *page);
                for sector in (0..PAGE_SECTORS).filter(|sector| sectors & (1 << sector) != 0) {
                    let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                    match data {
                        Some(page) => mixed[range.clone()].copy_from_slice(&page[range]),
                        None => mixed[range].fill(0),
                    }
                }
                self.set_page(number, Some(Rc::new(mixed)));
            }
        }
    }

    /// Gives page `number` space of its own; its content stays.
    pub(super) fn allocate(&mut self, number: u64) {
        self.extend_to((number + 1) * PAGE_BYTES as u64);
        if !self.is_allocated(number) {
            self.group_mut(number).allocated |= 1 << (number % GROUP_PAGES);
            self.allocated_pages += 1;
        }
    }

    /// Takes page `number`'s space away: it reads as zeroes.
    pub(super) fn punch(&mut self, number: u64) {
        if self.is_allocated(number) {
            let group = self.group_mut(number);
            group.allocated &= !(1 << (number % GROUP_PAGES));
            group.pages[(number % GROUP_PAGES) as usize] = None;
            self.allocated_pages -= 1;
        }
    }

    /// Flips one bit of page `number`; `bit` counts from the page's start.
    pub(super) fn flip(&mut self, number: u64, bit: usize) {
        let mut page = self.page(number).map_or([0; PAGE_BYTES], |page| *page);
        page[bit / 8] ^= 1 << (bit % 8);
        self.set_page(number, Some(Rc::new(page)));
    }

    fn group_mut(&mut self, number: u64) -> &mut Group {
        let index = (number / GROUP_PAGES) as usize;
        if self.groups.len() <= index {
            self.groups.resize(index + 1, None);
        }
        Rc::make_mut(self.groups[index].get_or_insert_with(|| Rc::new(Group::empty())))
    }
}

/// `bytes` as a page's content.
///
/// # Panics
/// If `bytes` is not one page long.
pub(super) fn page_of(bytes: &[u8]) -> PageData {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let Ok(page) = Page::try_from(bytes) else {
        panic!("operations address whole pages, not {} bytes", bytes.len());
    };
    Some(Rc::new(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_content_when_the_original_is_written() {
        let mut image = Image::default();
        image.set_page(70, page_of(&[7; PAGE_BYTES]));
        let before = image.clone();
        image.set_sectors(70, &page_of(&[9; PAGE_BYTES]), 0b0000_0010);
        assert_eq!(before.page(70).map(|page| page[512]), Some(7));
        assert_eq!(image.page(70).map(|page| (page[511], page[512], page[1024])), Some((7, 9, 7)));
    }

    #[test]
    fn space_is_counted_once_and_given_back() {
        let mut image = Image::default();
        image.allocate(3);
        image.set_page(3, page_of(&[1; PAGE_BYTES]));
        assert_eq!((image.allocated_pages(), image.bytes()), (1, 4 * PAGE_BYTES as u64));
        image.punch(3);
        assert_eq!((image.allocated_pages(), image.page(3)), (0, None));
    }
}
