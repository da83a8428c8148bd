//! The servers of other products, started here and set as fast as they can be.

pub(crate) mod etcd;
pub(crate) mod redis;
