//! Measures zerocache beside what people use for the same job today.

fn main() -> anyhow::Result<()> {
    Ok(())
}
