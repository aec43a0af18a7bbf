//! Lets the binary find DuckDB's library where it is built and where it is installed.
//!
//! Only needed when the library is linked: with the feature `bundled` it is inside the binary.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where an installation keeps the library, seen from the folder of the binary. The same in a
/// home folder, a package, and a Python environment.
const INSTALLED: &str = "../lib/cryoflux";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    if env::var_os("CARGO_FEATURE_BUNDLED").is_some() {
        return;
    }
    let origin = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        // Windows looks beside the program by itself.
        Ok("windows") => None,
        Ok("macos") => Some("@loader_path"),
        _ => Some("$ORIGIN"),
    };
    if let Some(origin) = origin {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{origin}/{INSTALLED}");
        // Where it is built: programs lie beside the library, tests and benches a folder below.
        println!("cargo:rustc-link-arg=-Wl,-rpath,{origin}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{origin}/..");
    }
    if let Some(folder) = env::var_os("DUCKDB_LIB_DIR")
        && let Err(error) = place_library(Path::new(&folder))
    {
        println!("cargo:warning=DuckDB's library was not put beside the program: {error}");
    }
}

/// Puts the library beside the built programs. No path of this machine is in the binary, so that
/// it can be packed as it is.
fn place_library(folder: &Path) -> io::Result<()> {
    let profile: Option<PathBuf> = env::var_os("OUT_DIR")
        .and_then(|out| Some(Path::new(&out).ancestors().nth(3)?.to_path_buf()));
    let profile = profile.ok_or_else(|| io::Error::other("OUT_DIR is not in a target folder"))?;
    for name in ["libduckdb.so", "libduckdb.dylib", "duckdb.dll"] {
        let library = folder.join(name);
        if library.is_file() {
            println!("cargo:rerun-if-changed={}", library.display());
            let beside = profile.join(name);
            if beside.exists() {
                fs::remove_file(&beside)?;
            }
            fs::hard_link(&library, &beside).or_else(|_| fs::copy(&library, &beside).map(drop))?;
        }
    }
    Ok(())
}
