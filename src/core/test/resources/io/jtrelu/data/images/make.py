"""Makes the pictures of this folder and what Pillow reads in them (run once; Pillow 9.4, NumPy 1.24).

NAME.expected holds a byte each for height and width, then the pixels as RGB, then as L, after
ImageOps.exif_transpose.
"""
import io, os, struct, zlib
import numpy as np
from PIL import Image, ImageCms, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(7)


def picture(h, w, c):
    y, x = np.mgrid[0:h, 0:w]
    planes = [160 * x / w + 40 * np.sin(y), 200 * y / h, 255 - 200 * (x + y) / (h + w), 90 + 5 * x]
    a = np.stack(planes[:c], -1) + rng.integers(0, 30, (h, w, c))
    return np.clip(a, 0, 255).astype(np.uint8)


def keep(name, data):
    image = Image.open(io.BytesIO(data))
    image.load()
    shown = ImageOps.exif_transpose(image)
    h, w = shown.height, shown.width
    pixels = shown.convert("RGB").tobytes() + shown.convert("L").tobytes()
    open(os.path.join(HERE, name), "wb").write(data)
    open(os.path.join(HERE, name + ".expected"), "wb").write(bytes([h, w]) + pixels)


# --- JPEG ---
def jpeg(a, mode=None, **options):
    out = io.BytesIO()
    Image.fromarray(a, mode).save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def segments(data):
    """Of the header: (marker, offset, end)."""
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]
        yield data[at + 1], at, end
        at = end
    yield 0xDA, at, at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]


def adobe(transform):
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def replace(data, marker, by):
    for m, at, end in segments(data):
        if m == marker:
            return data[:at] + by + data[end:]
    raise KeyError(marker)


colour = picture(19, 26, 3)
for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
    keep(f"ycc-{name}.jpg", jpeg(colour, subsampling=sampling))
keep("progressive.jpg", jpeg(colour, subsampling=2, progressive=True))
keep("gray.jpg", jpeg(colour[..., 1].copy()))
plain = jpeg(colour, subsampling=0)
keep("rgb-adobe.jpg", replace(plain, 0xE0, adobe(0)))
keep("ycc-adobe.jpg", replace(plain, 0xE0, adobe(1)))
bare = replace(plain, 0xE0, b"")
keep("ycc-unmarked.jpg", bare)
named = bytearray(bare)
for m, at, end in segments(bare):
    if m in (0xC0, 0xDA):
        first, step = (at + 10, 3) if m == 0xC0 else (at + 5, 2)
        for c in range(3):
            named[first + c * step] = b"RGB"[c]
keep("rgb-named.jpg", bytes(named))
inks = jpeg(picture(18, 21, 4), "CMYK")
keep("cmyk.jpg", inks)
keep("ycck.jpg", replace(inks, 0xEE, adobe(2)))
keep("cmyk-unmarked.jpg", replace(inks, 0xEE, b""))
# A profile whose red and blue are exchanged: whoever applies it sees other colours.
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
profile = profile.replace(b"rXYZ", b"####", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"####", b"bXYZ", 1)
keep("icc.jpg", jpeg(colour, subsampling=0, icc_profile=profile))
for order in ("big", "little"):
    for orientation in range(1, 9) if order == "big" else (6,):
        exif = Image.Exif()
        exif[0x10F] = "Maker"
        exif[0x112] = orientation
        exif.endian = ">" if order == "big" else "<"
        block = exif.tobytes()
        keep(f"exif-{order}-{orientation}.jpg", jpeg(picture(5, 9, 3), exif=block, subsampling=0))

# --- PNG ---
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rows(a, depth):
    out = b""
    for row in a.reshape(a.shape[0], -1):
        if depth == 16:
            out += b"\0" + row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(v), f"0{depth}b") for v in row)
            bits += "0" * (-len(bits) % 8)
            out += b"\0" + bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
    return out


def png(a, depth, kind, interlaced=False, extra=()):
    h, w = a.shape[:2]
    header = struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, int(interlaced))
    raw = rows(a, depth)
    if interlaced:
        raw = b"".join(rows(s, depth) for y, x, dy, dx in ADAM7 if (s := a[y::dy, x::dx]).size)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*e) for e in extra)
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def levels(depth, *shape):
    return rng.integers(0, 2**depth, shape)


for depth in (1, 2, 4, 8):
    keep(f"gray-{depth}.png", png(levels(depth, 11, 13), depth, 0))
    palette = rng.integers(0, 256, (2**depth, 3)).astype(np.uint8).tobytes()
    keep(f"palette-{depth}.png", png(levels(depth, 11, 13), depth, 3, extra=[(b"PLTE", palette)]))
palette = rng.integers(0, 256, (16, 3)).astype(np.uint8).tobytes()
keep("palette-transparent.png",
     png(levels(4, 9, 12), 4, 3, extra=[(b"PLTE", palette), (b"tRNS", bytes(range(0, 160, 20)))]))
gamma = (b"gAMA", struct.pack(">I", 100000))
keep("gray-gamma.png", png(levels(8, 9, 12), 8, 0, extra=[gamma]))
keep("gray-alpha-8.png", png(levels(8, 9, 12, 2), 8, 4))
keep("rgb-8.png", png(levels(8, 9, 12, 3), 8, 2, extra=[gamma]))
keep("rgb-16.png", png(levels(16, 9, 12, 3), 16, 2))
keep("rgb-interlaced.png", png(levels(8, 9, 12, 3), 8, 2, interlaced=True))
keep("rgb-icc.png", png(levels(8, 9, 12, 3), 8, 2, extra=[(b"iCCP", b"x\0\0" + zlib.compress(profile))]))
clear = levels(8, 9, 12, 3)
keep("rgb-transparent.png",
     png(clear, 8, 2, extra=[(b"tRNS", struct.pack(">HHH", *(int(v) for v in clear[2, 3])))]))
keep("rgba-8.png", png(levels(8, 9, 12, 4), 8, 6))
keep("rgba-16.png", png(levels(16, 9, 12, 4), 16, 6))
exif = Image.Exif()
exif[0x112] = 8
keep("exif-8.png", png(levels(8, 5, 9, 3), 8, 2, extra=[(b"eXIf", exif.tobytes()[6:])]))
