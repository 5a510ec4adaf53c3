"""Further photos than the demo's: in which package of Debian or the Python index each is, and what is made of it.

All photos of these packages were looked at. Left out is what is mostly out of focus or flat (Aqua, Blinds, FreshFlower,
Garden, LadyBird, TwoWings, Wood, YellowFlower; Bridge, free, greentock, seeding, sunset), what was blurred by motion as
it was taken (Storm), paintings and patterns (Elephants, analogpattern, umang), and a cut-out before a drawn background
(cheetah2).
"""

from dataclasses import dataclass
from pathlib import Path

from blurdm.data.photos.archives import Package


@dataclass(frozen=True)
class FetchedPhoto:
    """A photo in a package, stored reduced by the whole ``factor`` (1: byte for byte).

    ``sha256`` is of the file in the package, ``md5`` of the stored one. ``sharpness`` of the stored one is the variance
    of the 4-neighbour Laplacian of its luma, in squared 8-bit levels.
    """

    package: Package
    member: str
    sha256: str
    stem: str
    factor: int
    md5: str
    sharpness: int
    licence: str
    credit: str

    @property
    def file(self) -> str:
        return self.stem + (".bmp" if self.factor > 1 else Path(self.member).suffix)


_DEBIAN, _PYPI = "https://packages.debian.org", "https://pypi.org/project"
_LOMIRI = Package(
    "deb", "lomiri-wallpapers-16.04", "lomiri-wallpapers-16.04_*.deb", 15.8, f"{_DEBIAN}/lomiri-wallpapers-16.04"
)
_MATE = Package("deb", "mate-backgrounds", "mate-backgrounds_*.deb", 46.6, f"{_DEBIAN}/mate-backgrounds")
_IMGAUG = Package("wheel", "imgaug==0.4.0", "imgaug-0.4.0-*.whl", 0.9, f"{_PYPI}/imgaug/0.4.0/#files")
_GRADIO = Package("wheel", "gradio==4.44.1", "gradio-4.44.1-*.whl", 18.1, f"{_PYPI}/gradio/4.44.1/#files")

_GPL = "GPL-2+"
_APACHE = "Apache-2.0, that of the package"
_UNNAMED = "a test file of gradio, author not named"
_IMGAUG_SAYS = "example photo of imgaug, licence by its documentation, author not named"

FETCHED: tuple[FetchedPhoto, ...] = (
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg",
        "66268e7b48f8854d36a28765fac6e23ec1aee251daa6da1f64715f201020ad36",
        "aitzgorri",
        5,
        "0dcd59d806f442630c9f2f61f6335592",
        447,
        "CC-BY 4.0",
        "Aitzol Berasategi",
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/Picture_1A_by_freespace.jpg",
        "89e86af38d04daaef975665dc2127e9fa76f0fd68f4eea105a2d0ae3390b010b",
        "brushes",
        2,
        "73588cef51ec38d4a1bd2ab4efe13f2e",
        954,
        "CC-BY 4.0",
        'Trevor "Freespace"',
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/friends_by_Aitzol_Berasategi.jpg",
        "cc40e313c74e421edffe3403def413c16878ce14661cce7ec5915baeab35538d",
        "dogs",
        5,
        "87dd94a34fe609913a77a8406c2a6d18",
        272,
        "CC-BY 4.0",
        "Aitzol Berasategi",
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/Dragonfly_by_Bolly.jpg",
        "af5af17841009732def24b09bb1e669a1b09d2b4bdeee7812c371101c30d2bb3",
        "dragonfly",
        6,
        "8fd46b45d6b720dbe51ef95daf75ad52",
        522,
        "CC-BY-SA 4.0",
        '"Bolly"',
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/Picture_0B_by_freespace.jpg",
        "c8c0ab18e48d9e0419fe42881112137f3afafc27dfddc29ec3a6d54c56d225ad",
        "fig",
        4,
        "d1a600de6a35bf502db6fe966421c237",
        875,
        "CC-BY 4.0",
        'Trevor "Freespace"',
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "414d0072b2f6f2c555deafeaef6e45c4fed6fa9ad26eba6560ca8803959cf97a",
        "picos",
        5,
        "fbe5e2774088fb4bd081c705cd9d1b15",
        1208,
        "CC-BY 4.0",
        "Aitzol Berasategi",
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg",
        "4c119350ead80201fe256850c3d316309ddfb4bdf10b235ce982dcde0c667c05",
        "stream",
        5,
        "8e8840512bea3f7dbefa8fdcee772ad6",
        3735,
        "CC-BY 4.0",
        "Aitzol Berasategi",
    ),
    FetchedPhoto(
        _LOMIRI,
        "usr/share/backgrounds/Wine_by_Jakkub_Mede.jpg",
        "d2e96e6d4da40dd804b3d0ce295e94de04a2d7d9b6785d42cd9d92ba58bced74",
        "table",
        6,
        "3c4d61ccbfa138f672b46e9578501cc6",
        193,
        "CC-BY 4.0",
        "Jakub Mede",
    ),
    FetchedPhoto(
        _MATE,
        "usr/share/backgrounds/mate/nature/Dune.jpg",
        "8a67c2cb0be8c46b70c237311a4fa4d2b4ac7d39568135384787801fa5cc9a91",
        "dune",
        3,
        "973f6c8cdf81d009abef0d2bd0357ff3",
        640,
        _GPL,
        "Marco Cogoni, Hylke Bons",
    ),
    FetchedPhoto(
        _MATE,
        "usr/share/backgrounds/mate/nature/GreenMeadow.jpg",
        "8fa0de0aa4089f7319c9fb7a6d006d4cab6023e8c8853731557cff53567b4832",
        "meadow",
        3,
        "44dd46c16275fd2bf6d7e250bce50b97",
        135,
        _GPL,
        "Timothy Schellhase, Lapo Calamandrei",
    ),
    FetchedPhoto(
        _MATE,
        "usr/share/backgrounds/mate/nature/RainDrops.jpg",
        "3e4ea9671c28c90a86cf67b3db9daf18c4741587c596333a7529ca589aaa0c16",
        "raindrops",
        4,
        "021afb09f57e7281805bf0e13de3ca65",
        112,
        _GPL,
        '"blackcombwhistler07"',
    ),
    FetchedPhoto(
        _IMGAUG,
        "imgaug/quokka.jpg",
        "bf1059d0f925e7d0c712cadf07a04ba4cfc98957d7be65d3a7d8ae0c464cd76e",
        "quokka",
        2,
        "19b815b08d022556c5d8c474895018e1",
        532,
        "CC-BY-SA 2.0",
        _IMGAUG_SAYS,
    ),
    FetchedPhoto(
        _GRADIO,
        "gradio/test_data/cheetah1.jpg",
        "35550bfbba996e59c242af00f6a14a9c0d055dfbc52ad069a1a4e8c1c39ca095",
        "cheetah",
        1,
        "6c6730eca39c525911c5fcfcc4fb1f9d",
        1243,
        _APACHE,
        _UNNAMED,
    ),
    FetchedPhoto(
        _GRADIO,
        "gradio/test_data/lion.jpg",
        "4c45ece00075f152cb2e6cfd5f1dfd7dc8e83042264685b4f470026240eff3ef",
        "lion",
        1,
        "1767105ab5bfb6eccbef79c18a669c3f",
        3390,
        _APACHE,
        _UNNAMED,
    ),
    FetchedPhoto(
        _GRADIO,
        "gradio/_frontend_code/component-test/src/lib/images/base.webp",
        "611d231ecd7ec85e9111704ca4c8a770d20ddf52630c4f8aaa5d97ccf6dd4470",
        "street",
        2,
        "978abc1746844c0fd91aba620af76586",
        1811,
        _APACHE,
        _UNNAMED,
    ),
    FetchedPhoto(
        _GRADIO,
        "gradio/_frontend_code/component-test/src/lib/images/tower.jpg",
        "f57f96f7a71f89739d27ae8ffc09f73cd2f17415d16c94d42dcb0d571f4eb0ee",
        "tower",
        1,
        "c5fc13fc089a8a5917e405e1ed19fc58",
        2889,
        _APACHE,
        _UNNAMED,
    ),
)
