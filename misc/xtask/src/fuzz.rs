//! Runs the fuzz targets with the stable compiler: it instruments code, libFuzzer comes with `libfuzzer-sys`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::step::{cargo, root, run};

/// What libFuzzer needs to see where an input leads.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest input in bytes: most bootstraps among the samples.
const MAX_LEN: usize = 64 << 10;
/// What is read of a blob's end, in bytes.
const TAIL: usize = 4096;

/// Builds all targets and runs each for so many seconds, from the samples and what earlier runs have found.
pub(crate) fn run_all(seconds: u32) -> Result<()> {
    let (fuzz, host) = (root().join("tests/fuzz"), host()?);
    // With a target given, build scripts and macros are not instrumented.
    let build = ["build", "--release", "--locked", "--target", &host];
    run(
        "build",
        cargo(&build).current_dir(&fuzz).env("RUSTFLAGS", INSTRUMENTED).env_remove("CARGO_TARGET_DIR"),
    )?;
    for target in targets(&fuzz)? {
        let corpus = fuzz.join("corpus").join(&target);
        let artifacts = fuzz.join("artifacts").join(&target);
        fs::create_dir_all(&artifacts).with_context(|| artifacts.display().to_string())?;
        seed(&target, &corpus)?;
        let mut fuzzer = Command::new(fuzz.join("target").join(&host).join("release").join(&target));
        fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_LEN}"));
        fuzzer.args(["-rss_limit_mb=1024", "-timeout=20", "-print_final_stats=1", "-verbosity=0"]);
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
        run(&target, &mut fuzzer)?;
    }
    Ok(())
}

fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8(told.stdout).context("rustc -vV")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let files = files(&fuzz.join("targets"))?;
    let names = files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()));
    Ok(names.collect())
}

/// Puts parts of the samples into a corpus.
fn seed(target: &str, corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus).with_context(|| corpus.display().to_string())?;
    let mut seeds = 0;
    for sample in files(&root().join("tests/golden"))? {
        for file in files(&sample)? {
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            let is_bootstrap = file.file_name().is_some_and(|name| name == "bootstrap");
            let part = match (target, is_bootstrap) {
                ("bootstrap", true) if bytes.len() <= MAX_LEN => &bytes[..],
                ("blob_tail", false) => &bytes[bytes.len().saturating_sub(TAIL)..],
                _ => continue,
            };
            seeds += 1;
            fs::write(corpus.join(format!("sample-{seeds}")), part).context("seed")?;
        }
    }
    ensure!(seeds > 0, "no sample is a seed for {target}; say in xtask's fuzz.rs which parts are");
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}
