use codit::contrast::{Contrast, Noise, Vocabulary};
use codit::device::inspect::Inspect;
use codit::device::simt::Simt;
use codit::device::{
    AmateurLogits, Batch, Capacity, Device, Dtype, ExpertLogits, PerKind, Precision, SampleRow,
};
use codit::doctor::{Check, Comparison, Numbers, decided_by_expert, sample};

/// Logits are f32 in every format, so one format is enough.
#[test]
fn next_tokens_are_the_references() {
    let (device, cpu) = (Simt::simt(Dtype::F32, 3), codit::device::cpu::Cpu::new(None).unwrap());
    let mut on = Comparison::new(&device, &cpu, 3);
    let checks = sample::checks(&mut on).unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_the_expert_decides_and_what_is_deferred_to_the_amateur() {
    fn failures<D: Inspect>(device: &D) -> Vec<Check> {
        let cpu = codit::device::cpu::Cpu::new(None).unwrap();
        let mut on = Comparison::new(device, &cpu, 7);
        decided_by_expert::checks(&mut on).unwrap().into_iter().filter(|check| !check.passes()).collect()
    }
    let failed =
        [failures(&Simt::simt(Dtype::F32, 7)), failures(&codit::device::cpu::Cpu::new(None).unwrap())];
    assert!(failed.iter().all(Vec::is_empty), "{failed:#?}");
}

#[test]
#[ignore = "two minutes"]
fn a_million_draws_follow_the_distribution() {
    let (device, cpu) = (Simt::simt(Dtype::F32, 6), codit::device::cpu::Cpu::new(None).unwrap());
    let mut on = Comparison::new(&device, &cpu, 6);
    let check = sample::draws(&mut on, 1 << 20).unwrap();
    assert!(check.passes(), "{check:?}");
}

/// Rows that only pad a step to the size of a recorded step are not read. They keep the results of the step before.
#[test]
fn padding_stays_as_it_is() {
    let device = Simt::simt(Dtype::F32, 4);
    let (rows, len) = (3, 700);
    let vocabulary = Vocabulary::new(len, vec![]);
    let capacity = Capacity { max_num_seqs: rows, max_num_batched_tokens: rows, block_size: 1 };
    let mut step = device.step(capacity, PerKind::only_full(rows), &vocabulary).unwrap();
    let mut sample = |logits: &[f32], positions: [u32; 3]| {
        let mut expert = device.tensor(rows, len, Precision::Single).unwrap();
        device.upload(logits, &mut expert);
        let noise = Noise::new(1, "", 0);
        let row = |position| SampleRow {
            contrast: Contrast::direct(),
            noise,
            position,
            log_probabilities: false,
            deferred_row: None,
        };
        let batch = Batch { logits_indices: vec![0; rows], ..Batch::default() };
        device.prepare(&mut step, &batch, &positions.map(row));
        device.sample(&mut step, 0..rows, ExpertLogits::Computed(&expert), AmateurLogits::Unneeded);
        device.submit(&mut step);
        let results = device.collect(&mut step).unwrap();
        results.into_iter().map(|row| row.decision().unwrap()).collect::<Vec<_>>()
    };
    let mut logits = Numbers(5).take(rows * len);
    let before = sample(&logits, [7, 8, 9]);
    logits[len..].fill(f32::NAN);
    let after = sample(&logits, [7, u32::MAX, u32::MAX]);
    assert!(before.iter().all(Result::is_ok));
    assert_eq!(before, after);
}
