use std::time::{Duration, Instant};

use super::*;

const TICK: Duration = Duration::from_millis(1);

struct Places {
    limiter: Limiter,
    now: Instant,
}

impl Places {
    fn new(repeats_max: u64) -> Self {
        Self { limiter: Limiter::new(repeats_max), now: Instant::now() }
    }

    fn admit(&mut self, key: Key) -> Option<u64> {
        self.limiter.admit(key, self.now, Level::WARN, "target", "message")
    }

    fn overdue(&mut self) -> Vec<u64> {
        self.limiter.overdue(self.now).into_iter().map(|left_out| left_out.count).collect()
    }
}

fn place(number: u64) -> Key {
    Key::Line("target".to_owned(), number)
}

#[test]
fn what_is_written_and_what_is_left_out_are_what_happened() {
    let mut places = Places::new(3);
    let (mut written, mut left_out) = (0, 0);
    for _ in 0..1000 {
        places.now += Duration::from_millis(137);
        if let Some(before) = places.admit(place(1)) {
            written += 1;
            left_out += before;
        }
    }
    left_out += places.limiter.all().iter().map(|left_out| left_out.count).sum::<u64>();
    assert_eq!(written + left_out, 1000);
    // 137 s are 13 windows and a part; each begins with the first record after the one before.
    assert_eq!(written, 3 * 14);
}

#[test]
fn the_next_window_says_what_the_last_one_left_out() {
    let mut places = Places::new(2);
    let told: Vec<_> = (0..5).map(|_| places.admit(place(1))).collect();
    assert_eq!(told, [Some(0), Some(0), None, None, None]);
    assert_eq!(places.admit(place(2)), Some(0), "another place");
    places.now += WINDOW.saturating_sub(TICK);
    assert_eq!((places.admit(place(1)), places.overdue()), (None, vec![]));
    places.now += TICK;
    assert_eq!(places.admit(place(1)), Some(4));
    assert_eq!(places.admit(place(1)), Some(0));
    assert_eq!(places.overdue(), [0; 0]);
}

#[test]
fn what_was_left_out_is_said_once_its_window_is_over() {
    let mut places = Places::new(1);
    for _ in 0..3 {
        places.admit(place(1));
        places.admit(Key::Export);
    }
    places.now += WINDOW.saturating_sub(TICK);
    assert_eq!(places.overdue(), [0; 0]);
    places.now += TICK;
    assert_eq!(places.overdue(), [2]);
    assert_eq!(places.overdue(), [0; 0], "once");
    places.now += EXPORT_WINDOW;
    assert_eq!(places.overdue(), [2]);
    assert_eq!(places.limiter.owing, 0);
}

#[test]
fn without_a_limit_the_export_still_has_one() {
    let mut places = Places::new(0);
    assert!((0..100).all(|_| places.admit(place(1)) == Some(0)));
    assert!((0..100).all(|_| places.admit(Key::Free) == Some(0)));
    assert_eq!(places.admit(Key::Export), Some(0));
    assert_eq!(places.admit(Key::Export), None);
}

#[test]
fn so_many_places_are_told_apart() {
    let mut places = Places::new(1);
    for number in 0..PLACES_MAX as u64 {
        assert_eq!(places.admit(place(number)), Some(0));
    }
    assert_eq!(places.admit(place(u64::MAX)), Some(0), "the first of all others");
    assert_eq!(places.admit(place(u64::MAX - 1)), None, "which share a window");
    assert_eq!(places.limiter.windows.len(), PLACES_MAX + 1);
}
