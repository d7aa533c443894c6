//! Trees to search.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use tempfile::TempDir;

/// All that a tree can have in it, but for what cannot be read: in `tree`, with links to it beside it.
pub(crate) fn odd() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("below/further")).unwrap();
    fs::create_dir(tree.join("hidden.d")).unwrap();
    let files: [(&[u8], &[u8]); 27] = [
        (b"plain", b"one\ntwo\nthree\n"),
        (b"empty", b""),
        (b"one line feed", b"\n"),
        (b"line feeds", b"\n\n\n"),
        (b"no final line feed", b"one\ntwo"),
        (b"one byte", b"o"),
        (b"crlf", b"one\r\ntwo\r\n\r\nthree"),
        (b"cr", b"one\rtwo\rthree\r"),
        (b"nul", b"\0one\0\n\0\ntwo\0one\n"),
        (b"nuls", &[0; 5000]),
        (b"latin1", b"caf\xe9 one\n\xff\n\xe9\n"),
        (b"utf8", "caf\u{e9} one\n\u{1f600}\n".as_bytes()),
        (b"torn utf8", b"one \xc3\n\xa9 one\n\xf0\x9f\n"),
        (b"twice in a line", b"one one one\none\n"),
        (b"across lines", b"on\ne tw\no\n one\n"),
        (b"white", b" \t one \x0b\n\t\n \n"),
        (b"specials", b"a.b\na+b\n(one)\n[one]\n\\one\n*\n^one$\n"),
        (b"cases", b"ONE One oNe\n"),
        (b"words", b"stone one\nones\none_\n_one\n"),
        (b".hidden", b"one\n"),
        (b".gitignore", b"*\none\n"),
        (b"hidden.d/.one", b"one\n"),
        (b"below/one", b"one\n"),
        (b"below/further/two", b"two\n"),
        (b"name with\nline feed", b"one\n"),
        (b"name \xff not \xc3 utf8", b"one\n"),
        (b"-name: 7", b"one\n"),
    ];
    for (name, content) in files {
        fs::write(tree.join(OsStr::from_bytes(name)), content).unwrap();
    }
    fs::write(tree.join("large"), "one of many lines\nanother\n".repeat(100_000)).unwrap();
    fs::write(tree.join("long line"), "one ".repeat(700_000)).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();

    // None of these is searched when it is met.
    symlink("plain", tree.join("link to file")).unwrap();
    symlink("below", tree.join("link to directory")).unwrap();
    symlink("..", tree.join("below/loop")).unwrap();
    symlink("nowhere", tree.join("dangling link")).unwrap();
    symlink("/dev/zero", tree.join("link to device")).unwrap();
    nix::unistd::mkfifo(&tree.join("pipe"), Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(tree.join("socket")).unwrap());

    symlink("tree", directory.path().join("tree link")).unwrap();
    symlink("tree/plain", directory.path().join("file link")).unwrap();
    symlink("nowhere", directory.path().join("dangling")).unwrap();
    fs::create_dir(directory.path().join("nothing")).unwrap();
    directory
}

/// Many files in a few directories. With names so long that what is printed of them is more than a pipe
/// takes.
pub(crate) fn many(files: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), files);
    directory
}

fn fill(directory: &Path, files: usize) {
    let padding = "x".repeat(80);
    for file in 0..files {
        let below = directory.join((file % 7).to_string());
        if file < 7 {
            fs::create_dir(&below).unwrap();
        }
        let content = "one\nother\n".repeat(file % 50);
        fs::write(below.join(format!("{file:06}-{padding}")), content).unwrap();
    }
}
