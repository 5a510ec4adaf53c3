"""Names of what a run reports of its prior: the latents that its backbone is given, and the file. No torch."""

ROWS = "prior.csv"  # in the folder of a training run: PSNR (dB) by latent, scene and image of the validation set
OWN, MEAN, UNDIFFUSED = "own", "mean", "zb"
MISMATCHED, NO_NOISE, NO_EPS = "mismatched", "no_noise", "no_eps"
LATENTS = {
    OWN: "own",
    MEAN: "constant (mean)",
    UNDIFFUSED: "without diffusion (z^B)",
    MISMATCHED: "another photo's",
    NO_NOISE: "noise off",
    NO_EPS: "eps_theta = 0",
}
