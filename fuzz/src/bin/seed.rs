//! Writes the seeds of every target to `corpus/<target>/`, beside what earlier runs have found.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in caracal_fuzz::seeds() {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for seed in &seeds {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            fs::write(folder.join(format!("seed-{:016x}", hasher.finish())), seed)?;
        }
        println!("{target}: {} seeds", seeds.len());
    }
    Ok(())
}
