use std::time::Instant;

use codit::contrast::{Contrast, Distribution, Noise, RowFault, Sampled, Vocabulary};
use codit::device::cpu::Cpu;
use codit::device::inspect::Inspect;
use codit::device::{Device, Dtype, Precision, SampleRow};
use codit::ids::TokenId;

use super::{Numbers, devices, upload, view};
use crate::step::{sample, sample_hidden};

type Outcome = Result<Sampled, RowFault>;

fn sample_one(
    cpu: &Cpu,
    contrast: &Contrast,
    noise: Noise,
    vocabulary: &Vocabulary,
    (expert, amateur): (&[f32], Option<&[f32]>),
) -> Outcome {
    let expert = upload(cpu, expert.len(), expert);
    let amateur = amateur.map(|amateur| upload(cpu, amateur.len(), amateur));
    let rows =
        [SampleRow { contrast: *contrast, noise, position: 7, log_probabilities: false, deferred_row: None }];
    sample(cpu, &rows, vocabulary, &expert, amateur.as_ref())[0]
}

/// The distance between the winner and the runner-up. A token that wins by less than the rounding error cannot be
/// checked.
fn margin(contrast: &Contrast, distribution: &Distribution, noise: &Noise) -> f64 {
    let perturbed = |(&token, &p): (&TokenId, &f64)| p.ln() + noise.gumbel(7, token);
    let mut values: Vec<f64> = if contrast.temperature == 0.0 {
        distribution.s.clone()
    } else {
        distribution.tokens.iter().zip(&distribution.probabilities).map(perturbed).collect()
    };
    values.sort_by(|a, b| b.total_cmp(a));
    values.get(1).map_or(f64::INFINITY, |second| values[0] - second)
}

fn random_contrast(numbers: &mut Numbers) -> Contrast {
    Contrast {
        alpha: numbers.one_of(&[0.0, 1e-6, 0.01, 0.1, 0.5, 1.0]),
        beta: numbers.one_of(&[0.0, 0.3, 1.0, 2.0]),
        special_token_beta: numbers.one_of(&[None, None, Some(0.0), Some(0.5)]),
        temperature: numbers.one_of(&[0.0, 0.3, 1.0, 1.0, 2.5]),
        top_p: numbers.one_of(&[1.0, 1.0, 0.93, 0.47, 0.01]),
        top_k: numbers.one_of(&[0, 0, 1, 7, 100]),
        min_p: numbers.one_of(&[0.0, 0.0, 0.05, 1.0]),
    }
}

/// Logits with peaks, ties and masks.
fn random_logits(numbers: &mut Numbers, len: usize, ties: bool) -> Vec<f32> {
    let spread = numbers.one_of(&[1.0, 5.0, 15.0]);
    let masks = numbers.one_of(&[0.0, 0.3]);
    let one = |numbers: &mut Numbers| {
        let sum: f32 = (0..4).map(|_| numbers.next()).sum();
        let logit = if ties { (sum * spread * 2.0).round() / 2.0 } else { sum * spread };
        if numbers.next().abs() < masks { f32::NEG_INFINITY } else { logit }
    };
    (0..len).map(|_| one(numbers)).collect()
}

#[test]
fn draws_as_the_reference_does() {
    let mut numbers = Numbers(30);
    let devices = devices();
    let mut compared = 0;
    for case in 0..4000 {
        let (path, cpu) = &devices[case % devices.len()];
        let len = numbers.one_of(&[1, 2, 63, 64, 65, 300, 3000]);
        let padding = numbers.one_of(&[0, 5]);
        let contrast = random_contrast(&mut numbers);
        // Without an amateur, equal logits have exactly equal scores.
        let ties = contrast.beta == 0.0 && contrast.special_beta() == 0.0;
        let mut expert = random_logits(&mut numbers, len, ties);
        let mut amateur = random_logits(&mut numbers, len, false);
        expert.extend(vec![1e9; padding]);
        amateur.extend(vec![f32::NAN; padding]);
        let special = (0..5).map(|_| TokenId(numbers.below(len) as u32)).collect();
        let vocabulary = Vocabulary::new(len, special);
        let noise = Noise::new(case as u64, "record", 0);
        let found = sample_one(cpu, &contrast, noise, &vocabulary, (&expert, Some(&amateur)));
        let what = format!("case {case}, {path}, {contrast:?}");
        match Distribution::new(&contrast, &vocabulary, &expert, Some(&amateur)) {
            Err(fault) => assert_eq!(found, Err(fault), "{what}"),
            Ok(distribution) => {
                let (found, expected) = (found.expect(&what), distribution.sample(&noise, 7));
                assert_eq!(found.num_candidates, expected.num_candidates, "{what}");
                if margin(&contrast, &distribution, &noise) > 1e-9 || (contrast.temperature == 0.0 && ties) {
                    assert_eq!(found.token, expected.token, "{what}");
                    assert!((found.score - expected.score).abs() < 1e-5, "{what}: {found:?} {expected:?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 3000, "{compared}");
}

#[test]
fn large_plausible_sets() {
    let mut numbers = Numbers(31);
    for (path, cpu) in devices() {
        for contrast in [
            Contrast::direct(),
            Contrast { alpha: 0.0, ..Contrast::default() },
            Contrast { top_p: 0.95, ..Contrast::direct() },
            Contrast { top_k: 1000, min_p: 1e-4, temperature: 2.0, ..Contrast::direct() },
        ] {
            let (expert, amateur) =
                (random_logits(&mut numbers, 50_000, false), random_logits(&mut numbers, 50_000, false));
            let vocabulary = Vocabulary::new(50_000, vec![TokenId(3)]);
            let noise = Noise::new(1, path, 0);
            let found = sample_one(&cpu, &contrast, noise, &vocabulary, (&expert, Some(&amateur))).unwrap();
            let expected = Distribution::new(&contrast, &vocabulary, &expert, Some(&amateur)).unwrap();
            let expected = expected.sample(&noise, 7);
            assert_eq!(
                (found.token, found.num_candidates),
                (expected.token, expected.num_candidates),
                "{path} {contrast:?}"
            );
            assert!((found.score - expected.score).abs() < 1e-5, "{found:?} {expected:?}");
        }
    }
}

#[test]
fn a_fault_is_its_rows_own() {
    let mut numbers = Numbers(32);
    for (path, cpu) in devices() {
        let (rows, width, len) = (12, 200, 190);
        let (mut expert, mut amateur) = (numbers.take(rows * width), numbers.take(rows * width));
        let clean = (expert.clone(), amateur.clone());
        expert[2 * width + 5] = f32::NAN;
        expert[3 * width + 189] = f32::INFINITY;
        expert[4 * width..][..len].fill(f32::NEG_INFINITY);
        amateur[5 * width + 100] = f32::NAN;
        amateur[6 * width + 7] = f32::INFINITY;
        amateur[7 * width..][..len].fill(f32::NEG_INFINITY);
        // Padding is not read.
        expert[8 * width + 190] = f32::NAN;
        amateur[8 * width + 199] = f32::INFINITY;
        let (default, direct) = (Contrast::default(), Contrast::direct());
        let sample_all = |expert: &[f32], amateur: &[f32]| {
            let contrast = |row| if row == 6 { direct } else { default };
            let noise = |row: usize| Noise::new(row as u64, "r", 1);
            let samples: Vec<_> = (0..rows)
                .map(|row| SampleRow {
                    contrast: contrast(row),
                    noise: noise(row),
                    position: row as u32,
                    log_probabilities: false,
                    deferred_row: None,
                })
                .collect();
            let vocabulary = Vocabulary::new(len, vec![]);
            let (expert, amateur) = (upload(&cpu, width, expert), upload(&cpu, width, amateur));
            sample(&cpu, &samples, &vocabulary, &expert, Some(&amateur))
        };
        let (found, clean) = (sample_all(&expert, &amateur), sample_all(&clean.0, &clean.1));
        for row in 0..rows {
            match row {
                2 | 3 | 5 => assert_eq!(found[row], Err(RowFault::NotANumber), "{path} row {row}"),
                4 => assert_eq!(found[row], Err(RowFault::AllMasked), "{path}"),
                7 => assert!(found[row].is_ok(), "{path}"),
                // Row 6 needs only the expert: it never reads the amateur.
                _ => assert_eq!(found[row], clean[row], "{path} row {row}"),
            }
        }
    }
}

#[test]
fn draws_follow_the_distribution() {
    let cpu = Cpu::new(None).unwrap();
    let mut numbers = Numbers(33);
    let (len, rows, calls) = (40, 4096, 256);
    let (expert, amateur) = (numbers.take(len), numbers.take(len));
    let contrast = Contrast { alpha: 0.2, beta: 0.7, temperature: 0.8, top_k: 30, ..Contrast::default() };
    let vocabulary = Vocabulary::new(len, vec![]);
    let p = Distribution::new(&contrast, &vocabulary, &expert, Some(&amateur)).unwrap();
    let (expert, amateur) =
        (upload(&cpu, len, &expert.repeat(rows)), upload(&cpu, len, &amateur.repeat(rows)));
    let mut counts = vec![0u32; len];
    for call in 0..calls {
        let noise = Noise::new(9, "chi", call);
        let samples: Vec<_> = (0..rows as u32)
            .map(|position| SampleRow {
                contrast,
                noise,
                position,
                log_probabilities: false,
                deferred_row: None,
            })
            .collect();
        for sampled in sample(&cpu, &samples, &vocabulary, &expert, Some(&amateur)) {
            counts[sampled.unwrap().token.index()] += 1;
        }
    }
    let draws = f64::from(calls) * rows as f64;
    let mut drawable = 0;
    let mut chi_square = 0.0;
    for (token, probability) in p.tokens.iter().zip(&p.probabilities) {
        let found = f64::from(std::mem::take(&mut counts[token.index()]));
        if *probability > 0.0 {
            drawable += 1;
            chi_square += (found - draws * probability).powi(2) / (draws * probability);
        } else {
            assert!(found < 0.5, "{token:?} cannot be drawn");
        }
    }
    assert_eq!(counts, vec![0; len]);
    assert!(drawable > 20);
    // The mean is `drawable - 1`, the standard deviation `sqrt(2 (drawable - 1))`. The bound is four standard
    // deviations.
    let freedom = f64::from(drawable - 1);
    assert!(chi_square < freedom + 4.0 * (2.0 * freedom).sqrt(), "{chi_square} for {freedom}");
}

/// Truncating a flat row of a large vocabulary must not sort the whole row.
#[test]
fn flat_rows_are_quick() {
    let cpu = Cpu::new(Some(1)).unwrap();
    let mut numbers = Numbers(34);
    let logits = numbers.take(256_000);
    let vocabulary = Vocabulary::new(logits.len(), vec![]);
    let start = Instant::now();
    for top_p in [1.0, 0.01] {
        let contrast = Contrast { top_p, ..Contrast::direct() };
        sample_one(&cpu, &contrast, Noise::new(1, "", 0), &vocabulary, (&logits, None)).unwrap();
    }
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
}

/// The draws are the same with the amateur's logits of the candidates alone and with all of them.
#[test]
fn gathered_candidates_draw_as_all_logits_do() {
    for (path, cpu) in devices() {
        let mut numbers = Numbers(77);
        let (width, rows) = (48, 12);
        let mut counts = [0_usize; 2];
        for len in [3, 100, 700] {
            let vocabulary = Vocabulary::new(len, vec![TokenId(1), TokenId(2)]);
            let projection = numbers.take((len + 5) * width);
            let projection = cpu.weight(&[view(Dtype::Bf16, &[len + 5, width], &projection, 0)]).unwrap();
            for _ in 0..20 {
                let contrasts: Vec<_> = (0..rows).map(|_| random_contrast(&mut numbers)).collect();
                let expert: Vec<f32> =
                    (0..rows).flat_map(|_| random_logits(&mut numbers, len, false)).collect();
                let (expert, hidden) =
                    (upload(&cpu, len, &expert), upload(&cpu, width, &numbers.take(rows * width)));
                let samples: Vec<_> = contrasts
                    .iter()
                    .zip(0..)
                    .map(|(&contrast, position)| SampleRow {
                        contrast,
                        noise: Noise::new(3, "gathered", 0),
                        position,
                        log_probabilities: position == 5,
                        deferred_row: None,
                    })
                    .collect();
                let mut logits = cpu.tensor(rows, len + 5, Precision::Single).unwrap();
                cpu.matmul(rows, &hidden, &projection, None, &mut logits);
                let full = sample(&cpu, &samples, &vocabulary, &expert, Some(&logits));
                cpu.upload(&vec![f32::NAN; rows * (len + 5)], &mut logits);
                let amateur = (&hidden, &projection);
                let gathered = sample_hidden(&cpu, &samples, &vocabulary, &expert, amateur, &mut logits);
                for (gathered, full) in gathered.iter().zip(&full) {
                    let (Ok(gathered), Ok(full)) = (gathered, full) else {
                        assert_eq!(gathered, full, "{path}");
                        continue;
                    };
                    assert_eq!(
                        (gathered.token, gathered.num_candidates),
                        (full.token, full.num_candidates),
                        "{path}"
                    );
                    assert!((gathered.score - full.score).abs() < 1e-4, "{path}: {gathered:?} {full:?}");
                    assert_eq!(gathered.log_probabilities.is_some(), full.log_probabilities.is_some());
                    counts[usize::from(gathered.num_candidates as usize * 32 > len)] += 1;
                }
            }
        }
        assert!(counts[0] > 50 && counts[1] > 50, "{path}: {counts:?} small and large plausible sets");
    }
}
