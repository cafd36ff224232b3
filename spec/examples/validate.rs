//! Validates the files named on the command line together; with `--bench N` it validates N generated documents and
//! prints how long that took.

use std::time::Instant;

use spec::manifest::{AssembleOptions, Missing, ParseOptions, assemble, parse_file};
use spec::render::{render, summary};
use spec::secret::MacKey;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some("--bench") {
        bench(arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(1000));
        return std::process::ExitCode::SUCCESS;
    }
    let mut texts = Vec::new();
    for name in &arguments {
        match std::fs::read(name) {
            Ok(bytes) => texts.push((name.clone(), bytes)),
            Err(error) => eprintln!("cannot read {name}: {error}"),
        }
    }
    let files: Vec<_> = texts.iter().map(|(name, bytes)| parse_file(name, bytes, &ParseOptions::default())).collect();
    let key = MacKey::new([0; 32]);
    let all = assemble(&files, &AssembleOptions { mac_key: &key, node_labels: None, missing: Missing::Warning });
    let mut found: Vec<_> = files.iter().flat_map(|file| file.diagnostics.clone()).collect();
    found.extend(all.diagnostics);
    let source =
        |name: &str| texts.iter().find(|(n, _)| n == name).and_then(|(_, bytes)| std::str::from_utf8(bytes).ok());
    print!("{}", render(&found, source, false));
    println!("{} objects; {}", files.iter().map(|f| f.objects.len()).sum::<usize>(), summary(&found));
    if found.iter().any(spec::diagnostic::Diagnostic::is_error) {
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}

/// A Deployment as people write them: probes, resources, variables, volumes.
fn bench(documents: usize) {
    let texts: Vec<String> = (0..documents)
        .map(|n| include_str!("deployment.yaml").replace("name: web\n", &format!("name: web-{n}\n")))
        .collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let start = Instant::now();
    let files: Vec<_> =
        texts.iter().map(|text| parse_file("web.yaml", text.as_bytes(), &ParseOptions::default())).collect();
    let parsed = start.elapsed();
    let key = MacKey::new([0; 32]);
    let all = assemble(&files, &AssembleOptions { mac_key: &key, node_labels: None, missing: Missing::Warning });
    let total = start.elapsed();
    println!(
        "{documents} documents, {bytes} bytes: parsed in {parsed:?}, assembled in {:?}, {} workloads, {} findings",
        total - parsed,
        all.desired.workloads.len(),
        files.iter().map(|f| f.diagnostics.len()).sum::<usize>() + all.diagnostics.len(),
    );
}
