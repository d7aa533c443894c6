//! Makes Rust of the services that are described in a language of their own. Their compilers are crates, too.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "rivals")]
    rivals::generate()?;
    Ok(())
}

#[cfg(feature = "rivals")]
mod rivals {
    use std::error::Error;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use ttrpc_codegen::{Codegen, Customize};

    const FOLDER: &str = "src/compare/rivals";

    pub(crate) fn generate() -> Result<(), Box<dyn Error>> {
        println!("cargo::rerun-if-changed={FOLDER}/work.proto");
        println!("cargo::rerun-if-changed={FOLDER}/work.capnp");
        let out = PathBuf::from(env::var("OUT_DIR")?);
        tonic()?;
        ttrpc(&out.join("ttrpc_blocking"), false)?;
        ttrpc(&out.join("ttrpc_async"), true)?;
        capnp(&out)
    }

    fn tonic() -> Result<(), Box<dyn Error>> {
        let described = protox::compile(["work.proto"], [FOLDER])?;
        Ok(tonic_prost_build::configure().bytes(".").compile_fds(described)?)
    }

    /// A client and a service of one colour. The messages are the same for both: those of the blocking ones.
    fn ttrpc(out: &Path, is_async: bool) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(out)?;
        let mut codegen = Codegen::new();
        if !is_async {
            codegen.rust_protobuf();
        }
        codegen
            .out_dir(out)
            .include(FOLDER)
            .input(format!("{FOLDER}/work.proto"))
            .customize(Customize { async_all: is_async, ..Customize::default() })
            .run()?;
        // What it would write itself begins with an attribute that `include!` does not allow.
        let modules = if is_async { "pub mod work_ttrpc;" } else { "pub mod work;\npub mod work_ttrpc;" };
        Ok(fs::write(out.join("mod.rs"), modules)?)
    }

    fn capnp(out: &Path) -> Result<(), Box<dyn Error>> {
        let schema = format!("{FOLDER}/work.capnp");
        let described = capnpc_embedded::CompileCommand::new().src_prefix(FOLDER).file(schema).compile()?;
        capnpc::codegen::CodeGenerationCommand::new()
            .output_directory(out)
            .default_parent_module(["compare", "rivals", "capnp_rpc"].map(String::from).to_vec())
            .run(&described[..])?;
        Ok(())
    }
}
