// The public header, as Rust: OUTBOX_HEADER names it.
fn main() {
    let header = std::env::var("OUTBOX_HEADER").expect("OUTBOX_HEADER");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").expect("OUT_DIR")).join("outbox_backend.rs");
    println!("cargo:rerun-if-changed={header}");
    println!("cargo:rerun-if-env-changed=OUTBOX_HEADER");
    bindgen::Builder::default()
        .header(header)
        .allowlist_item("outbox_.*|OUTBOX_.*")
        .generate()
        .expect("bindings")
        .write_to_file(out)
        .expect("written bindings");
}
