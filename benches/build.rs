//! Makes Rust of the services that are described in a language of their own.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "rivals")]
    {
        const FOLDER: &str = "src/compare/rivals";
        println!("cargo::rerun-if-changed={FOLDER}/work.proto");
        let described = protox::compile(["work.proto"], [FOLDER])?;
        tonic_prost_build::configure().bytes(".").compile_fds(described)?;
    }
    Ok(())
}
