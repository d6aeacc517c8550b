//! Gives every request the time that it may take at most.

use holdfast_block::{BlockDevice, Geometry, Request, Session};
use std::{rc::Rc, time::Duration};

/// A device whose requests have a deadline.
pub(crate) struct Deadlines {
    device: Rc<dyn BlockDevice>,
    within: Duration,
}

impl Deadlines {
    /// `device`, whose requests are to be answered `within` this time of their arrival.
    pub(crate) fn new(device: Rc<dyn BlockDevice>, within: Duration) -> Self {
        Self { device, within }
    }
}

impl BlockDevice for Deadlines {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn open(&self) -> Rc<Session> {
        self.device.open()
    }

    fn submit(&self, session: &Rc<Session>, mut request: Request) {
        let deadline = request.context.arrived + self.within;
        request.context.deadline =
            Some(request.context.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        self.device.submit(session, request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_block::{Context, Op, Priority, SessionId};
    use std::{cell::RefCell, time::Instant};

    #[derive(Default)]
    struct Recorder(RefCell<Vec<Option<Instant>>>);

    impl BlockDevice for Recorder {
        fn geometry(&self) -> Geometry {
            Geometry {
                size_bytes: 4096,
                logical_block_bytes: 512,
                preferred_block_bytes: 4096,
                max_request_bytes: 4096,
                read_only: false,
            }
        }
        fn open(&self) -> Rc<Session> {
            Rc::new(Session::new(SessionId(1)))
        }
        fn submit(&self, _: &Rc<Session>, request: Request) {
            self.0.borrow_mut().push(request.context.deadline);
        }
    }

    #[test]
    fn a_deadline_counts_from_arrival_and_never_extends_one() {
        let recorder = Rc::new(Recorder::default());
        let device = Deadlines::new(recorder.clone(), Duration::from_secs(7));
        let session = device.open();
        let arrived = Instant::now();
        let early = arrived + Duration::from_secs(1);
        for deadline in [None, Some(early), Some(arrived + Duration::from_secs(60))] {
            let context = Context { arrived, priority: Priority::Normal, deadline };
            device.submit(&session, Request { tag: 0, context, op: Op::Flush });
        }
        let limit = Some(arrived + Duration::from_secs(7));
        assert_eq!(*recorder.0.borrow(), [limit, Some(early), limit]);
    }
}
