use super::*;

/// Deterministic pseudo-random numbers (splitmix64), so that a failure repeats.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn stamp(buf: &mut BufMut, value: u64) {
    for (i, word) in buf.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&value.wrapping_add(i as u64).to_le_bytes());
    }
}

fn check(bytes: &[u8], value: u64, from: usize) {
    for (i, word) in bytes.chunks_exact(8).enumerate() {
        let expected = value.wrapping_add((from / 8 + i) as u64);
        assert_eq!(u64::from_le_bytes(word.try_into().unwrap()), expected);
    }
}

#[test]
fn buffers_are_aligned_rounded_and_disjoint() {
    let pool = BufPool::new(1 << 20);
    for (asked, got) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (300_000, 303_104)] {
        let buf = pool.alloc(asked);
        assert_eq!(buf.len(), got);
        assert_eq!(buf.as_ptr() as usize % ALIGN, 0);
    }
    let (base, len) = pool.arena_region();
    let bufs: Vec<_> = (0..5).map(|_| pool.alloc(3 * ALIGN)).collect();
    for buf in &bufs {
        assert_eq!(buf.arena(), Some(pool.arena()));
        let at = buf.as_ptr() as usize - base as usize;
        assert!(at + buf.len() <= len);
    }
}

#[test]
fn a_full_arena_and_a_large_request_overflow_to_the_heap() {
    let pool = BufPool::new(8 * ALIGN);
    let held: Vec<_> = (0..8).map(|_| pool.alloc(1)).collect();
    let mut over = pool.alloc(2 * ALIGN);
    assert_eq!(over.arena(), None);
    assert!(over.iter().all(|&b| b == 0), "initialised");
    over.fill(9);
    let shared = over.freeze();
    let part = shared.slice(ALIGN..ALIGN + 3);
    drop(shared);
    assert_eq!(&part[..], [9, 9, 9]);
    assert_eq!(
        pool.stats(),
        PoolStats {
            arena_bytes: 8 * ALIGN,
            arena_bytes_used: 8 * ALIGN,
            overflow_buffers: 1,
            overflow_bytes: 2 * ALIGN,
            overflow_total: 1,
        }
    );
    drop((held, part));
    let large = pool.alloc(257 * 1024);
    assert_eq!(large.arena(), None);
    drop(large);
    let stats = pool.stats();
    assert_eq!((stats.arena_bytes_used, stats.overflow_bytes, stats.overflow_total), (0, 0, 2));
    assert!(BufPool::new(0).alloc(1).arena().is_none());
}

#[test]
fn a_view_keeps_its_buffer_and_gives_it_back_only_alone() {
    let pool = BufPool::new(1 << 20);
    let mut buf = pool.alloc(4 * ALIGN);
    stamp(&mut buf, 1);
    let whole = buf.freeze();
    let view = whole.slice(1000..9000).slice(96..104);
    let whole = whole.try_into_mut().expect_err("two views");
    drop(whole);
    drop(pool);
    check(&view, 1, 1096);
    let mut back = view.try_into_mut().expect("the only view");
    assert_eq!(back.len(), 4 * ALIGN, "all of it");
    check(&back, 1, 0);
    stamp(&mut back, 2);
    check(&back, 2, 0);
}

#[test]
fn zeroes_are_shared_and_never_writable() {
    let zeroes = Buf::zeroes(256 * 1024);
    assert!(zeroes.iter().all(|&b| b == 0));
    assert_eq!(zeroes.as_ptr(), Buf::zeroes(4096).as_ptr());
    assert!(zeroes.try_into_mut().is_err());
}

#[test]
#[should_panic(expected = "of 4096")]
fn a_slice_beyond_the_view_is_refused() {
    let whole = BufPool::new(1 << 20).alloc(2 * ALIGN).freeze();
    let _ = whole.slice(0..ALIGN).slice(0..ALIGN + 1);
}

/// Allocates, clones, slices, gives back and frees at random. Every live view
/// must show its stamp after every step: overlapping, early reuse and lost
/// references all show.
#[test]
fn nothing_overlaps_and_nothing_leaks_under_random_use() {
    let mut rng = Rng(42);
    let pool = BufPool::new(2 << 20);
    let mut live: Vec<(u64, usize, Buf)> = Vec::new();
    for step in 0..30_000u64 {
        match rng.below(10) {
            0..=3 if live.len() < 120 => {
                let largest = if rng.below(50) == 0 { 100 * ALIGN } else { 20 * ALIGN };
                let mut buf = pool.alloc(1 + rng.below(largest));
                stamp(&mut buf, step << 20);
                live.push((step << 20, 0, buf.freeze()));
            }
            4 | 5 if !live.is_empty() && live.len() < 120 => {
                let (stamp, from, buf) = &live[rng.below(live.len())];
                let start = rng.below(buf.len() / 8) * 8;
                let end = start + rng.below((buf.len() - start) / 8 + 1) * 8;
                if end > start {
                    let view = (*stamp, from + start, buf.slice(start..end));
                    live.push(view);
                }
            }
            6 if !live.is_empty() => {
                let at = rng.below(live.len());
                let (old, from, buf) = live.swap_remove(at);
                match buf.try_into_mut() {
                    Ok(mut back) => {
                        check(&back, old, 0);
                        stamp(&mut back, step << 20);
                        live.push((step << 20, 0, back.freeze()));
                    }
                    Err(buf) => live.push((old, from, buf)),
                }
            }
            _ if !live.is_empty() => {
                let at = rng.below(live.len());
                drop(live.swap_remove(at));
            }
            _ => {}
        }
        if let Some((stamp, from, buf)) = live.last() {
            check(buf, *stamp, *from);
        }
        if step % 64 == 0 {
            live.iter().for_each(|(stamp, from, buf)| check(buf, *stamp, *from));
        }
    }
    assert!(pool.stats().overflow_total > 0, "the arena was never full: test too tame");
    live.iter().for_each(|(stamp, from, buf)| check(buf, *stamp, *from));
    live.clear();
    let stats = pool.stats();
    assert_eq!((stats.arena_bytes_used, stats.overflow_bytes), (0, 0));
    let whole: Vec<_> = (0..8).map(|_| pool.alloc(256 * 1024)).collect();
    assert!(whole.iter().all(|buf| buf.arena().is_some()), "fragmented after all was freed");
}
