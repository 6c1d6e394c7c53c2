//! Tests the method's reference against hand-made cases, and its noise against the expected distribution.

use codit::contrast::{Contrast, Distribution, Noise, RowFault, Vocabulary, philox4x32_10};
use codit::ids::TokenId;

fn distribution(contrast: &Contrast, expert: &[f32], amateur: &[f32]) -> Result<Distribution, RowFault> {
    let vocabulary = Vocabulary::new(expert.len(), vec![]);
    Distribution::new(contrast, &vocabulary, expert, Some(amateur))
}

fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln() + 3.0).collect()
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 1e-6, "{found:?} {expected:?}");
    }
}

/// Known answers from the authors of Philox (Random123, `kat_vectors`).
#[test]
fn philox_known_answers() {
    assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn plausible_set_contrast_and_score() {
    let contrast = Contrast { alpha: 0.25, beta: 1.0, ..Contrast::default() };
    let d =
        distribution(&contrast, &logits(&[0.4, 0.3, 0.2, 0.09, 0.01]), &logits(&[0.4, 0.1, 0.2, 0.2, 0.1]))
            .unwrap();
    assert_eq!(d.tokens, [0, 1, 2].map(TokenId));
    // e / a = 1, 3, 1
    close(&d.probabilities, &[0.2, 0.6, 0.2]);
    close(&d.scores, &[0.2f64.ln(), 0.6f64.ln(), 0.2f64.ln()]);
    close(&d.expert, &[0.4f64.ln(), 0.3f64.ln(), 0.2f64.ln()]);
    close(&d.amateur.unwrap(), &[0.4f64.ln(), 0.1f64.ln(), 0.2f64.ln()]);
}

#[test]
fn beta_and_alpha_zero_is_the_expert() {
    let e = [0.4, 0.3, 0.2, 0.1];
    let d = distribution(&Contrast::direct(), &logits(&e), &logits(&[0.1, 0.2, 0.3, 0.4])).unwrap();
    close(&d.probabilities, &e.map(f64::from));
    close(&d.scores, &d.expert);
    assert!(d.amateur.is_none());
}

#[test]
fn cuts_apply_after_temperature_in_order() {
    let direct = Contrast { temperature: 0.5, ..Contrast::direct() };
    let p = |contrast: Contrast| {
        distribution(&contrast, &logits(&[0.5, 0.3, 0.15, 0.05]), &[0.0; 4]).unwrap().probabilities
    };
    let square = [0.25, 0.09, 0.0225, 0.0025];
    let normalized = |keep: usize| {
        let total: f64 = square[..keep].iter().sum();
        (0..4).map(|v| if v < keep { square[v] / total } else { 0.0 }).collect::<Vec<_>>()
    };
    close(&p(Contrast { top_k: 3, ..direct }), &normalized(3));
    close(&p(Contrast { top_p: 0.9, ..direct }), &normalized(2));
    close(&p(Contrast { min_p: 0.3, ..direct }), &normalized(2));
    // Top-k keeps two tokens; the first of them has 0.735 of their mass.
    close(&p(Contrast { top_k: 2, top_p: 0.73, ..direct }), &normalized(1));
    close(&p(Contrast { temperature: 0.0, ..direct }), &[1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn ties_take_the_lowest_id() {
    let d = distribution(&Contrast { temperature: 0.0, ..Contrast::direct() }, &[1.0, 2.0, 2.0], &[0.0; 3])
        .unwrap();
    assert_eq!(d.sample(&Noise::new(1, "a", 0), 0).token, TokenId(1));
}

#[test]
fn guidance_is_the_same_family() {
    let (z_e, z_a, b, t) = ([1.0f32, 0.3, -0.5, 2.0], [0.5f32, 0.9, -1.5, 0.0], 1.5, 0.8);
    let contrast = Contrast { alpha: 0.0, temperature: t, ..Contrast::default() }.with_guidance(b);
    let d = distribution(&contrast, &z_e, &z_a).unwrap();
    let guided: Vec<f64> =
        (0..4).map(|v| (((1.0 + b) * f64::from(z_e[v]) - b * f64::from(z_a[v])) / t).exp()).collect();
    let total: f64 = guided.iter().sum();
    close(&d.probabilities, &guided.iter().map(|g| g / total).collect::<Vec<_>>());
}

#[test]
fn masks_and_faults() {
    let inf = f32::NEG_INFINITY;
    let contrast = Contrast { alpha: 0.0, ..Contrast::default() };
    let d = distribution(&contrast, &[0.0, inf, 0.0, 0.0], &[inf, inf, 1.0, 0.0]).unwrap();
    assert_eq!(d.tokens, [0, 2, 3].map(TokenId));
    assert!(d.scores.iter().all(|s| s.is_finite()));
    close(&[d.s[0]], &[d.s[2]]);
    assert!(d.amateur.unwrap()[0] == f64::NEG_INFINITY);
    let all_masked = distribution(&contrast, &[0.0, 1.0], &[inf, inf]).unwrap();
    close(&[all_masked.s[1] - all_masked.s[0]], &[1.0]);
    assert_eq!(all_masked.amateur, Some(vec![f64::NEG_INFINITY; 2]));
    assert_eq!(distribution(&contrast, &[inf; 3], &[0.0; 3]).unwrap_err(), RowFault::AllMasked);
    assert_eq!(distribution(&contrast, &[0.0, f32::NAN], &[0.0; 2]).unwrap_err(), RowFault::NotANumber);
    assert_eq!(distribution(&contrast, &[0.0; 2], &[0.0, f32::INFINITY]).unwrap_err(), RowFault::NotANumber);
}

#[test]
fn a_beta_beyond_all_numbers_is_a_fault_unless_there_is_no_choice() {
    let huge = Contrast { alpha: 0.0, beta: 1e308, ..Contrast::default() };
    assert_eq!(distribution(&huge, &[0.0, 1.0], &[9.0, -9.0]).unwrap_err(), RowFault::Overflow);
    let forced = Contrast { alpha: 1.0, ..huge };
    let d = distribution(&forced, &[0.0, 1.0], &[9.0, -9.0]).unwrap();
    assert_eq!((d.tokens, d.scores, d.probabilities), (vec![TokenId(1)], vec![0.0], vec![1.0]));
}

#[test]
fn special_tokens_have_a_beta_of_their_own() {
    let vocabulary = Vocabulary::new(3, vec![TokenId(2)]);
    let contrast = Contrast { alpha: 0.0, special_token_beta: Some(0.0), ..Contrast::default() };
    let (e, a) = ([0.5f32, 0.3, 0.2], [0.25f32, 0.65, 0.1]);
    let d = Distribution::new(&contrast, &vocabulary, &logits(&e), Some(&logits(&a))).unwrap();
    let weights = [0.5 / 0.25, 0.3 / 0.65, 0.2];
    let total: f64 = weights.iter().sum();
    close(&d.probabilities, &weights.map(|w| w / total));
}

#[test]
fn padding_is_never_plausible() {
    let vocabulary = Vocabulary::new(2, vec![]);
    let d = Distribution::new(&Contrast::direct(), &vocabulary, &[0.0, 1.0, 9.0, f32::NAN], None).unwrap();
    assert_eq!(d.tokens, [0, 1].map(TokenId));
}

#[test]
fn out_of_range_parameters_are_named() {
    let bad = [
        ("alpha", Contrast { alpha: 1.5, ..Contrast::default() }),
        ("beta", Contrast { beta: -1.0, ..Contrast::default() }),
        ("beta", Contrast { beta: f64::NAN, ..Contrast::default() }),
        ("temperature", Contrast { temperature: f64::INFINITY, ..Contrast::default() }),
        ("top-p", Contrast { top_p: 0.0, ..Contrast::default() }),
        ("min-p", Contrast { min_p: 2.0, ..Contrast::default() }),
        ("special-token-beta", Contrast { special_token_beta: Some(-0.1), ..Contrast::default() }),
    ];
    for (name, contrast) in bad {
        let message = contrast.validate().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
    Contrast::default().validate().unwrap();
}

/// Compares 1,048,576 draws with the exact distribution.
#[test]
fn draws_follow_the_distribution() {
    let expert: Vec<f32> = (0..40).map(|v| ((v * 7919) % 37) as f32 / 9.0).collect();
    let amateur: Vec<f32> = (0..40).map(|v| ((v * 104_729) % 41) as f32 / 12.0).collect();
    let contrast = Contrast { alpha: 0.02, beta: 0.7, ..Contrast::default() };
    let d = distribution(&contrast, &expert, &amateur).unwrap();
    let draws = 1 << 20;
    let mut counts = [0u32; 40];
    for record in 0..64 {
        let noise = Noise::new(7, &record.to_string(), 0);
        for position in 0..draws / 64 {
            counts[d.sample(&noise, position).token.index()] += 1;
        }
    }
    let outside: u32 = (0..40).filter(|v| !d.tokens.contains(&TokenId(*v))).map(|v| counts[v as usize]).sum();
    assert_eq!(outside, 0, "a draw outside the plausible set");
    let chi_square: f64 = d.tokens.iter().zip(&d.probabilities).fold(0.0, |sum, (token, p)| {
        let expected = p * f64::from(draws);
        sum + (f64::from(counts[token.index()]) - expected).powi(2) / expected
    });
    let freedom = (d.tokens.len() - 1) as f64;
    // Wilson-Hilferty: the cube root of chi-square divided by its degrees of freedom is nearly normal; 4.75 sigma is
    // p = 1e-6.
    let z = ((chi_square / freedom).cbrt() - (1.0 - 2.0 / (9.0 * freedom))) / (2.0 / (9.0 * freedom)).sqrt();
    assert!(d.tokens.len() > 8 && z < 4.75, "chi-square {chi_square} at {freedom} degrees of freedom");
}
