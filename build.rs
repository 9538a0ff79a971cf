//! Compiles the gRPC contract without a system protoc, and keeps its descriptors for reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "proto/guestconnections/v1/guest_connections.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("guest_connections.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().skip_protoc_run().compile_fds(descriptors)?;
    Ok(())
}
