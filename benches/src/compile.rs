//! What `#[service]` adds to a build: a program is written that serves and calls a trait of many methods, and
//! built with the attribute and without it.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Methods of the trait
    #[arg(long, default_value_t = 50)]
    methods: usize,
    /// Builds of which the fastest counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Where to build, instead of a temporary directory: what is there already is not built again
    #[arg(long)]
    target_dir: Option<PathBuf>,
}

/// Arguments, result, and how they are called: methods have these in turn.
const SHAPES: [(&str, &str, &str); 8] = [
    ("id: u64", "u64", "7"),
    ("text: &str", "String", "\"text\""),
    ("name: &str, body: &[u8]", "()", "\"name\", b\"body\""),
    ("point: Point", "Point", "Point::default()"),
    ("points: &[Point]", "Vec<Point>", "&[Point::default()]"),
    ("figure: &Figure, at: Option<u32>", "Figure", "&Figure::Nothing, Some(1)"),
    ("path: &Path, flags: (bool, u8)", "Option<String>", "Path::new(\"/\"), (true, 1)"),
    (
        "names: Vec<String>, counts: HashMap<String, u64>",
        "HashMap<String, u64>",
        "Vec::new(), HashMap::new()",
    ),
];

const TYPES: &str = r#"
use std::collections::HashMap;
use std::path::Path;

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Point { x: f64, y: f64, name: Option<String> }

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum Figure { #[default] Nothing, Circle { centre: Point, radius: f64 }, Polygon(Vec<Point>) }

struct Answers;
"#;

/// Prints what the forms of the service's methods cost: microseconds, then bytes of the hello.
const FORMS: &str = r#"
fn forms() {
    use lpc_core::Service as _;
    use lpc_core::handshake::Offer;
    let start = std::time::Instant::now();
    let forms = lpc_core::form::of::<WorkService>();
    let time = start.elapsed();
    let fingerprints: Vec<_> = forms.iter().map(|form| lpc_core::form::fingerprint(form.as_ref())).collect();
    let offer = Offer::new(WorkService::NAME, WorkService::METHODS, &lpc_core::Limits::default());
    let hello = offer.with_fingerprints(&fingerprints).encode();
    println!("{} {}", time.as_micros(), hello.len());
}
"#;

#[derive(Clone, Copy)]
enum Colour {
    Blocking,
    Async,
}

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    let directory = tempfile::tempdir()?;
    let target = arguments.target_dir.clone().unwrap_or_else(|| directory.path().join("target"));
    let project = Project { directory: directory.path(), target: &target };
    project.write_manifest()?;
    println!("{} methods, the fastest of {} builds", arguments.methods, arguments.rounds);
    println!("{:8} {:9} {:8} {:>8} {:>12}", "colour", "trait", "profile", "seconds", "text bytes");
    for (colour, name) in [(Colour::Blocking, "blocking"), (Colour::Async, "async")] {
        for profile in ["debug", "release"] {
            for (is_service, kind) in [(false, "plain"), (true, "#[service]")] {
                let source = source(colour, is_service, arguments.methods).map_err(lpc::Error::other)?;
                let mut fastest = Duration::MAX;
                // The first builds the dependencies as well.
                for _ in 0..=arguments.rounds {
                    fastest = fastest.min(project.build(&source, profile)?);
                }
                let (seconds, text) = (fastest.as_secs_f64(), project.text_bytes(profile)?);
                println!("{name:8} {kind:10} {profile:8} {seconds:7.2} {text:12}");
            }
        }
        let output = Command::new(project.program("release")).arg("forms").output()?;
        let output = String::from_utf8_lossy(&output.stdout);
        let (time, hello) = output
            .trim()
            .split_once(' ')
            .ok_or_else(|| lpc::Error::other("the program did not say what forms cost"))?;
        println!("{name:8} forms are found in {time} µs; the server's hello is of {hello} bytes");
    }
    Ok(())
}

/// The program.
fn source(colour: Colour, is_service: bool, methods: usize) -> Result<String, fmt::Error> {
    let (attribute, async_token, dot_await) = match (colour, is_service) {
        (Colour::Blocking, true) => ("#[lpc::service]\n", "", ""),
        (Colour::Async, true) => ("#[lpc::service]\n", "async ", ".await"),
        (Colour::Blocking, false) => ("", "", ""),
        (Colour::Async, false) => ("#[allow(async_fn_in_trait)]\n", "async ", ".await"),
    };
    let shapes = || SHAPES.iter().cycle().take(methods).enumerate();
    let mut source = format!("{TYPES}\n{attribute}pub trait Work {{\n");
    for (at, (arguments, result, _)) in shapes() {
        writeln!(source, "    {async_token}fn m{at}(&self, {arguments}) -> lpc::Result<{result}>;")?;
    }
    writeln!(source, "}}\n\n#[allow(unused_variables)]\nimpl Work for Answers {{")?;
    for (at, (arguments, result, _)) in shapes() {
        let body = "Ok(Default::default())";
        writeln!(
            source,
            "    {async_token}fn m{at}(&self, {arguments}) -> lpc::Result<{result}> {{ {body} }}"
        )?;
    }
    writeln!(source, "}}\n\n{async_token}fn call(work: &impl Work) -> lpc::Result<()> {{")?;
    for (at, (_, _, values)) in shapes() {
        writeln!(source, "    work.m{at}({values}){dot_await}?;")?;
    }
    let client = if is_service { "&WorkClient::connect(\"work\")" } else { "&Ok::<_, lpc::Error>(Answers)" };
    let client = match colour {
        Colour::Async if is_service => format!("{client}.await?"),
        _ => format!("{client}?"),
    };
    let server = match (is_service, colour) {
        (false, _) => "Ok(())",
        (true, Colour::Blocking) => "lpc::blocking::Server::bind(\"work\")?.serve(Answers)",
        (true, Colour::Async) => "lpc::Server::bind(\"work\")?.serve(Answers).await",
    };
    let forms = if is_service { "Some(\"forms\") => forms(),\n        " } else { "" };
    let main = format!(
        "match std::env::args().nth(1).as_deref() {{
        {forms}Some(\"serve\") => return {server},
        _ => call({client}){dot_await}?,
    }}
    Ok(())"
    );
    let main = match colour {
        Colour::Blocking => main,
        Colour::Async => format!(
            "let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect(\"it starts\");
    runtime.block_on(async {{ {main} }})"
        ),
    };
    write!(source, "    Ok(())\n}}\n\nfn main() -> lpc::Result<()> {{\n    {main}\n}}\n")?;
    source.push_str(if is_service { FORMS } else { "" });
    Ok(source)
}

/// The program's crate.
struct Project<'p> {
    directory: &'p Path,
    target: &'p Path,
}

impl Project<'_> {
    fn write_manifest(&self) -> io::Result<()> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let [runtime, core] = ["lpc-runtime", "lpc-core"].map(|name| workspace.join(name));
        let manifest = format!(
            "[package]\nname = \"work\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
             lpc = {{ package = \"lpc-runtime\", path = {runtime:?}, features = [\"tokio\"] }}\n\
             lpc-core = {{ path = {core:?} }}\n\
             serde = {{ version = \"1\", features = [\"derive\"] }}\n\
             tokio = {{ version = \"1\", features = [\"rt\"] }}\n\n[workspace]\n"
        );
        fs::create_dir_all(self.directory.join("src"))?;
        fs::write(self.directory.join("Cargo.toml"), manifest)?;
        // So that the versions are those of the workspace.
        fs::copy(workspace.join("Cargo.lock"), self.directory.join("Cargo.lock")).map(drop)
    }

    /// Builds the program, and gives how long that took.
    fn build(&self, source: &str, profile: &str) -> io::Result<Duration> {
        fs::write(self.directory.join("src/main.rs"), source)?;
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--offline"]).current_dir(self.directory);
        cargo.env("CARGO_TARGET_DIR", self.target).env("CARGO_INCREMENTAL", "0");
        cargo.args((profile == "release").then_some("--release"));
        let start = Instant::now();
        let status = cargo.status()?;
        let time = start.elapsed();
        if status.success() { Ok(time) } else { Err(io::Error::other("the program does not build")) }
    }

    fn program(&self, profile: &str) -> PathBuf {
        self.target.join(profile).join("work")
    }

    /// Bytes of machine code and constants, by `size` of the binutils.
    fn text_bytes(&self, profile: &str) -> lpc::Result<u64> {
        let output = Command::new("size").arg(self.program(profile)).output()?;
        let output = String::from_utf8_lossy(&output.stdout);
        // A line of headings, then one of figures, of which the first is that of text.
        let text = output.lines().nth(1).and_then(|line| line.split_whitespace().next());
        let bytes = text.and_then(|text| text.parse().ok());
        bytes.ok_or_else(|| lpc::Error::other("`size` says nothing of the program"))
    }
}
