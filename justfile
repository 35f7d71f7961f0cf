# `just check` before a commit, `just fix` to repair what a tool can. Needs `just`: cargo install just

# What CI asks of the sources; writes nothing to them.
check: deny
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --locked
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# Formats, and applies what clippy can apply by itself.
fix:
    cargo clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged
    cargo fmt --all

# Every test, or those that match: just test torn
test *filter:
    cargo test --workspace --locked {{ filter }}

# Every bench, or one: just bench crypto
bench name='*':
    cargo bench --locked -p kimberlite-benches --bench '{{ name }}'

# Kimberlite beside others at the same work; a workspace of its own, which builds LMDB.
rivals keys='1000000':
    cargo bench --locked --manifest-path benches/rivals/Cargo.toml --bench store --bench store_writes -- '{{ keys }}'

# The main job from beginning to end, on the example data.
demo:
    cargo run --release --locked -p kimberlite-cli -- demo

# The pages of the crates, in a browser.
doc:
    cargo doc --workspace --no-deps --locked --open

# Licences and sources of the dependencies; passed over without cargo-deny.
deny:
    @cargo deny --version >/dev/null 2>&1 || echo 'cargo-deny is not installed: passed over'
    @! cargo deny --version >/dev/null 2>&1 || cargo deny --locked --offline check bans licenses sources

# Known faults of the dependencies; fetches the advisory database.
advisories:
    cargo deny --locked check advisories
