//! The engine as a library: `cargo run --release --example synthesize`

use codit::{AnyEngine, Contrast, DeviceChoice, EngineConfig, Finish, Request, embedded};

fn main() -> codit::Result<()> {
    let (expert, amateur) = (embedded::expert(), embedded::amateur());
    let config = EngineConfig::default();
    let mut engine = AnyEngine::load(DeviceChoice::Auto, &expert, Some(&amateur), &config)?;

    // Draw three samples of one prompt. Each sample has its own noise.
    for sample in 0..3 {
        let contrast = Contrast { beta: 0.5, ..Contrast::default() };
        let request = Request::new("question", "What is 3 plus 4?");
        engine.submit(Request { sample, contrast, seed: 1, ..request })?;
    }
    let unwanted = engine.submit(Request::new("unwanted", "What is 5 plus 4?"))?;
    engine.cancel(unwanted);

    for completion in &mut engine {
        let completion = completion?;
        let name = format!("{} (sample {})", completion.id, completion.sample);
        match &completion.finish {
            Finish::Failed(error) => eprintln!("{name}: {error}"),
            finish => {
                println!(
                    "{name}: {finish:?} after {} tokens: {}",
                    completion.response_tokens(),
                    completion.text
                );
            }
        }
    }
    Ok(())
}
