//! Small uses of everything unsafe in the pool and the buffers, for Miri and the sanitizers.
#![cfg(not(feature = "loom"))]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use codit_pool_model::arena::Arena;
use codit_pool_model::buffer::Buffer;
use codit_pool_model::pool::ThreadPool;
use codit_pool_model::tiles::{DEPTH, Matrix, OUTPUTS};

#[test]
fn the_pool_borrows_from_its_callers_stack() {
    for threads in 1..=3 {
        let pool = ThreadPool::new(threads).expect("threads");
        for round in 0..20 {
            let mut items = vec![0; 7];
            pool.for_each(items.iter_mut(), |item| *item += 1);
            assert_eq!(items, [1; 7]);
            let counts: [AtomicUsize; 5] = Default::default();
            pool.for_each_in_chunks(&counts, |count| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            let text = format!("round {round}");
            let nested = || {
                let mut inner = [0; 3];
                pool.for_each(inner.iter_mut(), |item| *item = text.len());
                inner
            };
            let (a, b) = pool.join(nested, nested);
            assert_eq!(a, b);
            if round % 10 == 9 {
                std::thread::sleep(Duration::from_millis(2)); // the threads fall asleep
            }
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.for_each(0..9, |item| assert!(item != 4, "item 4"));
        }));
        assert!(caught.is_err());
    }
}

#[test]
fn a_buffer_is_as_long_as_it_says() {
    let mut buffer = Buffer::<f32>::zeroed(5, 7, "a test").expect("memory");
    assert!(buffer.len() == 35 && buffer.iter().all(|x| *x == 0.0));
    buffer.iter_mut().enumerate().for_each(|(index, x)| *x = index as f32);
    assert_eq!((buffer[0], buffer[34]), (0.0, 34.0));
    let mut populating = buffer.populating();
    populating.advance(64);
    assert_eq!(buffer[34], 34.0);
    assert!(Buffer::<f32>::zeroed(0, 7, "nothing").expect("memory").is_empty());
    assert!(Buffer::<f32>::zeroed(usize::MAX, 8, "too much").is_err());
    drop(buffer);
    populating.advance(64);
}

#[test]
fn pieces_of_an_arena_do_not_overlap_and_outlive_it() {
    let arena = Arena::default();
    let mut pieces: Vec<_> = (1..5).map(|len| arena.take(len).expect("memory")).collect();
    for (number, piece) in pieces.iter_mut().enumerate() {
        assert_eq!(piece.len(), number + 1);
        piece.iter_mut().for_each(|tile| tile.0[0][0] = number as u32 + 1);
    }
    drop(arena);
    for (number, piece) in pieces.iter().enumerate() {
        assert!(piece.iter().all(|tile| tile.0[0][0] == number as u32 + 1));
    }
}

#[test]
fn a_matrix_gives_its_rows_again() {
    let (rows, columns) = (OUTPUTS + 3, DEPTH + 5);
    let bytes: Vec<u8> = (0..rows * columns * 2).map(|index| (index % 251) as u8).collect();
    let matrix = Matrix::new(&Arena::default(), &bytes, columns).expect("memory");
    for row in [0, 1, OUTPUTS - 1, OUTPUTS, rows - 1] {
        let stored: Vec<u8> = matrix.row(row).flatten().copied().take(columns * 2).collect();
        assert_eq!(stored, bytes[row * columns * 2..][..columns * 2]);
    }
}
