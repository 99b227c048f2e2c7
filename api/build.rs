//! Generates the gRPC services, server and client, over the messages of `holdfast-proto`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;
use prost_types::FileDescriptorSet;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_HOLDFAST_PROTO_DESCRIPTOR_PATH");
    let published = variable("DEP_HOLDFAST_PROTO_DESCRIPTOR_PATH")?;
    println!("cargo:rerun-if-changed={}", published.display());

    let published = std::fs::read(published)?;
    // What reflection tells, with all that it refers to.
    std::fs::write(variable("OUT_DIR")?.join("descriptors.bin"), &published)?;
    let mut set = FileDescriptorSet::decode(published.as_slice())?;
    // Annotations for HTTP and the like are not part of any message.
    set.file.retain(|file| {
        file.package().starts_with("temporal.") || file.package() == "google.protobuf"
    });
    tonic_prost_build::configure()
        .extern_path(".temporal.api", "::holdfast_proto::temporal::api")
        .generate_default_stubs(true)
        .compile_fds(set)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a build script is configured by variables only")]
fn variable(name: &str) -> Fallible<PathBuf> {
    Ok(std::env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))?.into())
}
