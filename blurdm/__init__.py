"""BlurDM (arXiv 2512.03979): a blur-and-noise diffusion prior for image deblurring, and its experiment suite."""
