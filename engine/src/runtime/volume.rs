//! A volume as frontends on its shard see it.

use super::AttachVolume;
use holdfast_block::{BlockDevice, Geometry, Request, Session};
use holdfast_types::VolumeId;
use std::rc::Rc;

/// An attached volume. Take it from [`super::Shard::volume`]; hand it to a
/// frontend as `Rc<dyn BlockDevice>`.
pub struct Volume {
    spec: AttachVolume,
}

impl Volume {
    /// Which volume.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.spec.volume
    }
}

impl BlockDevice for Volume {
    fn geometry(&self) -> Geometry {
        unimplemented!()
    }

    fn open(&self) -> Rc<Session> {
        unimplemented!()
    }

    fn submit(&self, _session: &Rc<Session>, _request: Request) {
        unimplemented!()
    }
}
