//! The engine as a library: `cargo run --release --example synthesize`

use codit::device::cpu::Cpu;
use codit::{Contrast, Engine, EngineConfig, Finish, Request, embedded};

fn main() -> codit::Result<()> {
    let (expert, amateur) = (embedded::expert(), embedded::amateur());
    let mut engine = Engine::load(Cpu::new(None)?, &expert, Some(&amateur), &EngineConfig::default())?;

    for sample in 0..3 {
        let contrast = Contrast { beta: 0.5, ..Contrast::default() };
        engine.submit(Request {
            sample,
            contrast,
            seed: 1,
            ..Request::new(format!("answer {sample}"), "What is 3 plus 4?")
        })?;
    }
    let regretted = engine.submit(Request::new("regretted", "What is 5 plus 4?"))?;
    engine.cancel(regretted);

    for done in &mut engine {
        let done = done?;
        match done.finish {
            Finish::Failed(error) => eprintln!("{}: {error}", done.id),
            finish => println!("{} ({finish:?}, {} tokens): {}", done.id, done.tokens.len(), done.text),
        }
    }
    Ok(())
}
