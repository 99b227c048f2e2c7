//! The reflection service, in both of its versions: tools like grpcurl ask it what there is to call.

use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH;
use tonic_reflection::pb::{v1 as pb, v1alpha as pb_alpha};
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

use super::SERVICES;

/// The descriptors of Temporal's services and of all that they refer to.
const TEMPORAL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What both versions tell: the services that are served, and no other that is described.
fn told() -> Builder<'static> {
    let described = [HEALTH, pb::FILE_DESCRIPTOR_SET, pb_alpha::FILE_DESCRIPTOR_SET, TEMPORAL]
        .into_iter()
        .fold(Builder::configure(), Builder::register_encoded_file_descriptor_set);
    SERVICES.into_iter().fold(described, Builder::with_service_name)
}

/// Version 1.
pub(crate) fn stable() -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>, Error> {
    told().build_v1()
}

/// The version before, which older tools ask for.
pub(crate) fn alpha()
-> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, Error> {
    told().build_v1alpha()
}
