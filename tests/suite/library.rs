//! Uses the library as an embedder does.

use codit::device::Device;
use codit::device::cpu::Cpu;
use codit::text::Conversation;
use codit::{AnyEngine, DeviceChoice, Engine, EngineConfig, Finish, Prompt, Replicas, Request, embedded};

fn request(id: &str, sample: u32) -> Request {
    Request { sample, seed: 7, max_tokens: 12, ..Request::new(id, "What is 3 plus 4?") }
}

#[test]
fn an_engine_of_a_device_chosen_at_run_time_answers_as_one_of_that_type() {
    let (expert, amateur) = (embedded::expert(), embedded::amateur());
    let config = EngineConfig::default();
    let choice = DeviceChoice::Cpu { threads: Some(2) };
    let mut any = AnyEngine::load(choice, &expert, Some(&amateur), &config).unwrap();
    let mut typed = Engine::load(Cpu::new(Some(2)).unwrap(), &expert, Some(&amateur), &config).unwrap();
    assert_eq!(any.device_info().description, typed.device().info().description);
    for sample in 0..3 {
        any.submit(request("q", sample)).unwrap();
        typed.submit(request("q", sample)).unwrap();
    }
    let texts = |all: Vec<codit::Completion>| {
        let mut texts: Vec<_> = all.into_iter().map(|one| (one.sample, one.tokens, one.text)).collect();
        texts.sort();
        texts
    };
    let any = texts(any.by_ref().map(Result::unwrap).collect());
    assert_eq!(any.len(), 3);
    assert_eq!(any, texts(typed.by_ref().map(Result::unwrap).collect()));
}

#[test]
fn a_completion_says_its_sample_and_counts_its_tokens() {
    let (expert, amateur) = (embedded::expert(), embedded::amateur());
    let config = EngineConfig { max_model_len: Some(64), ..EngineConfig::default() };
    let devices = vec![Cpu::new(Some(2)).unwrap()];
    let mut replicas = Replicas::load(devices, &expert, Some(&amateur), &config).unwrap();
    let chat = replicas.first().chat_ids(&Conversation::of_instruction("What is 3 plus 4?")).unwrap();
    let too_long = Request { prompt: Prompt::Tokens(vec![chat[0]; 64]), ..request("too long", 8) };
    let no_turn = Request { prompt: Prompt::Chat(Conversation::default()), ..request("no turn", 9) };
    let requests = vec![request("q", 3), request("q", 5), too_long, no_turn];
    let mut counts = Vec::new();
    let each = |step: codit::engine::Stepped| {
        for one in step.completions {
            assert_eq!(one.response_tokens(), one.tokens.len());
            assert_eq!(matches!(one.finish, Finish::Failed(_)), one.tokens.is_empty());
            counts.push((one.sample, one.prompt_tokens));
        }
        Ok(std::ops::ControlFlow::Continue(()))
    };
    replicas.decode(requests.into_iter().map(Ok), each).unwrap();
    counts.sort_unstable();
    let failed_early = counts.pop().unwrap();
    assert_eq!(counts, [(3, chat.len()), (5, chat.len()), (8, 64)]);
    assert!(failed_early.0 == 9, "{failed_early:?}");

    let mut engine = Engine::load(Cpu::new(Some(1)).unwrap(), &expert, Some(&amateur), &config).unwrap();
    let sequence = engine.submit(request("q", 6)).unwrap();
    assert!(engine.cancel(sequence));
    let cancelled = engine.next().unwrap().unwrap();
    assert_eq!((cancelled.sample, cancelled.prompt_tokens, cancelled.response_tokens()), (6, chat.len(), 0));
}
