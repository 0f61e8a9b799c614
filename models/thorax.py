"""The organs of the thorax phantom and their places; models.phantom turns them into a CT volume."""

from dataclasses import dataclass, field

import numpy as np

from models.anatomy import (
    AIR,
    BLOOD,
    BONE,
    FAT,
    MUSCLE,
    Body,
    Canvas,
    Plane,
    Tubes,
    airways,
    blobs,
    oval,
    vessel_tree,
)


@dataclass(eq=False)
class Thorax:
    """A patient: `paint(canvas, z)` fills one plane and returns the covered fractions of both lungs."""

    body: Body
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        b = self.body
        self.rng = rng = np.random.default_rng(b.seed)

        def vary(scale: float = 0.06) -> float:
            return float(1.0 + rng.uniform(-scale, scale))

        self.height = 258.0 * b.size * b.breath * vary()
        self.wide, self.deep = 132.0 * b.size * vary(), 90.0 * b.size * vary(0.12)
        self.power = float(rng.uniform(2.1, 2.7))
        self.base, self.apex = -self.height / 2, self.height / 2
        self.carina = self.base + self.height * float(rng.uniform(0.55, 0.65))
        self.dome = {-1: 75.0 * vary(0.3) / b.breath, 1: 62.0 * vary(0.35) / b.breath}
        self.heart = (24.0 * b.size * vary(0.4), -0.28 * self.deep, self.base + 78.0 * vary(0.15))
        self.heart_half = (54.0 * b.size * vary(0.25), 44.0 * b.size * vary(0.2), 58.0 * vary(0.15))
        self.spine_y, self.spine_r = self.deep - 20.0 * vary(0.2), 19.0 * b.size * vary(0.1)
        self.narrow = float(rng.uniform(3.0, 9.0))
        self.lung_hu = float(rng.uniform(-945.0, -750.0)) + 90.0 * (1.0 - b.breath)
        self.blood = BLOOD + b.contrast_hu
        self.air_tree = airways((2.0, 10.0), self.carina, self.apex + 120.0, 8.5 * b.size * vary(0.15))
        self.vessels = {
            side: vessel_tree(rng, (side * 34.0 * b.size, 10.0, self.carina - 28.0)) for side in (-1, 1)
        }
        self.waves = rng.uniform(0.0, 6.28, 6)
        wide, deep = self.wide, self.deep
        self.bowel = blobs(
            rng, 34,
            ((-0.75 * wide, 0.75 * wide), (-0.75 * deep, 0.3 * deep), (self.base - 380.0, self.base - 40.0)),
            (11.0, 30.0), (AIR, -960.0, 15.0, -300.0),
        )  # fmt: skip
        self.nodules = blobs(
            rng, b.lesions, ((-0.8 * wide, 0.8 * wide), (-0.5 * deep, 0.6 * deep), (-80.0, 90.0)),
            (4.0, 16.0), (30.0, 45.0, -450.0, -650.0),
        )  # fmt: skip
        self.wet_side = int(rng.choice([-1, 1]))
        self.wrap = float(rng.uniform(0.0, 1.0))
        self._ribs: tuple[int, Plane] | None = None

    def level(self, z: float) -> float:
        """0 at the lowest point of the lungs, 1 at the apex."""
        return (z - self.base) / self.height

    def taper(self, z: float, start: float = 0.3) -> float:
        """How far the rib cage has closed towards the apex: 1 below, 0 at the apex."""
        s = min(max((self.level(z) - start) / (1.0 - start), 0.0), 1.0)
        return float((1.0 - s**2.2) ** 0.5)

    def outline(self, z: float) -> tuple[float, float]:
        """Half axes of the skin in mm."""
        b, fat = self.body, self.body.fat_mm
        at = np.array([-600.0, -330.0, -120.0, 0.0, 150.0, 190.0, 245.0, 275.0, 310.0, 700.0]) - 125.0
        at = at * b.size + (self.base + 125.0 * b.size)
        shoulder = 62.0 if b.arms == "down" else 40.0
        wide = (
            self.wide + np.array([34.0, 40.0, 22.0, 24.0, 34.0, 40.0, shoulder, -10.0, -68.0, -70.0]) * b.size
        )
        deep = self.deep + np.array([22.0, 22.0, 26.0, 27.0, 26.0, 24.0, 8.0, -8.0, -30.0, -28.0]) * b.size
        at = at + np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1]) * (self.apex - self.base - 250.0 * b.size)
        return float(np.interp(z, at, wide)) + fat, float(np.interp(z, at, deep)) + fat

    def paint(self, canvas: Canvas, z: float) -> dict[int, Plane]:
        """Paints the plane at height z; returns the covered fractions of the right (-1) and left (1) lung."""
        self.paint_table(canvas)
        lungs = {side: np.zeros_like(canvas.hu) for side in (-1, 1)}
        if z < self.base - 420.0:
            self.paint_legs(canvas)
            return lungs
        if z > self.apex + 110.0:
            self.paint_head(canvas, z)
        else:
            self.paint_trunk(canvas, z)
            if z < self.apex + 8.0:
                self.paint_cavity(canvas, z)
            if self.base <= z <= self.apex:
                for side in (-1, 1):
                    self.paint_lung(canvas, z, side, lungs[side])
        self.paint_bones(canvas, z)
        self.paint_airway(canvas, z, lungs)
        self.paint_arms(canvas, z)
        return lungs

    def paint_table(self, canvas: Canvas) -> None:
        """The couch under the patient and a foam pad on it."""
        if self.body.table == "none":
            return
        down = -1.0 if self.body.prone else 1.0
        top = down * (self.deep + 27.0 * self.body.size + self.body.fat_mm + 4.0)
        lean = np.tan(np.deg2rad(self.body.table_tilt_deg)) * canvas.x[None, :]
        bend = (canvas.x[None, :] / 260.0) ** 2 * 70.0 if self.body.table == "curved" else 0.0
        depth = down * (canvas.y[:, None] - top - lean) + bend
        inside = np.abs(canvas.x)[None, :] - 215.0
        everywhere = (slice(None), slice(None))
        for near, far, value in ((-12.0, 2.0, -930.0), (2.0, 40.0, 60.0), (6.0, 36.0, -940.0)):
            slab = np.maximum(np.maximum(near - depth, depth - far), inside + (6.0 if far == 36.0 else 0.0))
            canvas.blend(everywhere, canvas.cover(slab.astype(np.float32)), value)

    def paint_legs(self, canvas: Canvas) -> None:
        """Two thighs."""
        for side in (-1.0, 1.0):
            for radius, value in (
                (78.0, FAT),
                (78.0 - self.body.fat_mm, MUSCLE),
                (15.0, 900.0),
                (8.0, -40.0),
            ):
                canvas.ellipse((side * 88.0, 10.0), (radius, radius), value)

    def paint_head(self, canvas: Canvas, z: float) -> None:
        """Skull, brain, sinuses and pharynx."""
        middle = self.apex + 225.0
        for shrink, value in ((0.0, MUSCLE), (6.0, 950.0), (13.0, 36.0)):
            canvas.ellipsoid(z, (0.0, 0.0, middle), (78.0 - shrink, 98.0 - shrink, 118.0 - shrink), value)
        canvas.ellipsoid(z, (0.0, -62.0, middle - 55.0), (24.0, 22.0, 30.0), AIR)
        canvas.ellipsoid(z, (0.0, -40.0, middle - 75.0), (4.0, 40.0, 36.0), 600.0)
        canvas.ellipsoid(z, (0.0, -18.0, middle - 90.0), (14.0, 8.0, 50.0), AIR)

    def paint_trunk(self, canvas: Canvas, z: float) -> None:
        """Breasts, skin, fat and the muscle of the wall."""
        wide, deep = self.outline(z)
        if self.wrap > 0.5:
            for side in (-1.0, 1.0):
                centre = (side * 0.55 * self.wide, -self.deep - 22.0, self.base + 0.45 * self.height)
                canvas.ellipsoid(z, centre, (58.0, 42.0, 62.0), FAT)
        shape = 2.3
        canvas.ellipse((0.0, 0.0), (wide, deep), 10.0, shape)
        canvas.ellipse((0.0, 0.0), (wide - 2.0, deep - 2.0), FAT, shape)
        fat = self.body.fat_mm
        canvas.ellipse((0.0, 1.0), (wide - 2.0 - fat, deep - 3.0 - fat), MUSCLE, shape)
        for side in (-1.0, 1.0):
            canvas.ellipse((side * 0.5 * self.wide, deep - fat - 8.0), (26.0, 2.5), FAT)

    def paint_cavity(self, canvas: Canvas, z: float) -> None:
        """Everything inside the rib cage and the abdominal wall except lungs and bones."""
        grow = 0.5 + 0.5 * self.taper(z, 0.45)
        if z < self.base - 40.0:
            grow = 1.06
        canvas.ellipse((0.0, 0.0), (self.wide * grow, self.deep * grow), -75.0, self.power)
        if z < self.base + max(self.dome.values()):
            self.paint_abdomen(canvas, z)
        wall, soft = self.blood, MUSCLE - 15.0
        canvas.ellipsoid(z, self.heart, self.heart_half, soft)
        x, y, middle = self.heart
        canvas.ellipsoid(z, (x + 18.0, y + 6.0, middle - 6.0), (26.0, 22.0, 34.0), wall)
        canvas.ellipsoid(z, (x - 24.0, y, middle), (22.0, 26.0, 36.0), wall)
        arch = self.carina + 22.0
        canvas.ellipse((20.0, self.spine_y - 24.0) if z < arch else (9e3, 0.0), (12.5, 12.5), wall)
        canvas.ellipsoid(z, (9.0, 0.0, arch), (13.0, 38.0, 15.0), wall)
        if self.heart[2] < z < arch:
            canvas.ellipse((-8.0, -28.0), (16.0, 16.0), wall)
            canvas.ellipse((-28.0, -22.0), (9.0, 10.0), wall)
        canvas.ellipsoid(z, (8.0, -12.0, self.carina - 14.0), (44.0, 12.0, 12.0), wall)
        if z > arch:
            for dx, dy in ((-20.0, -20.0), (0.0, -24.0), (19.0, -10.0), (-16.0, -2.0)):
                canvas.ellipse((dx, dy), (6.5, 6.5), wall)
        canvas.ellipse((8.0, 24.0), (8.0, 6.0), 30.0)
        if self.wrap > 0.4:
            canvas.ellipse((8.0, 23.0), (3.0, 2.0), -900.0)

    def paint_abdomen(self, canvas: Canvas, z: float) -> None:
        """Liver, spleen, stomach, kidneys and bowel; lungs are painted over what lies above the domes."""
        lift = 0.35 * self.body.contrast_hu
        for centre, half, value in self.bowel:
            canvas.ellipsoid(z, centre, (half[0] + 3.0, half[1] + 3.0, half[2] + 3.0), 40.0)
            canvas.ellipsoid(z, centre, half, value)
        wide, deep, base = self.wide, self.deep, self.base
        canvas.ellipsoid(
            z,
            (-0.42 * wide, -2.0, base - 15.0),
            (0.66 * wide, 0.98 * deep, 15.0 + self.dome[-1]),
            58.0 + lift,
        )
        canvas.ellipsoid(
            z, (0.45 * wide, 8.0, base - 15.0), (0.5 * wide, 0.9 * deep, 15.0 + self.dome[1]), 45.0 + lift
        )
        stomach = (0.45 * wide, -0.18 * deep, base + self.dome[1] - 52.0)
        canvas.ellipsoid(z, stomach, (0.36 * wide, 0.5 * deep, 46.0), 25.0)
        up = 0.22 * deep if self.body.prone else -0.22 * deep
        canvas.ellipsoid(
            z, (stomach[0], stomach[1] + up, stomach[2]), (0.3 * wide, 0.24 * deep, 36.0), AIR + 5.0
        )
        for side in (-1.0, 1.0):
            canvas.ellipsoid(
                z, (side * 62.0, 0.55 * deep, base - 90.0), (28.0, 24.0, 55.0), 32.0 + 2.0 * lift
            )

    def lung_distance(self, x: Plane, y: Plane, z: float, side: int) -> Plane:
        """Signed distance in mm to the surface of one lung; side -1 is the right one."""
        grow, top = 0.5 + 0.5 * self.taper(z, 0.45), self.taper(z)
        wall = oval(x, y, (0.0, 0.0), (self.wide * grow - 2.5, self.deep * grow - 2.5), self.power)
        inner = (side * 0.52 * self.wide, 4.0 + 10.0 * (1.0 - top))
        own = oval(x, y, inner, (0.62 * self.wide * top + 1.0, 1.1 * self.deep * top + 1.0), 2.4)
        knots = np.array([-0.95, -0.5, -0.15, 0.3, 0.75, 1.1]) * self.deep
        hilum = 1.0 - min(abs(z - self.carina + 20.0) / 70.0, 1.0)
        middle = np.array([self.narrow, self.narrow + 8.0, 30.0 + 8.0 * hilum, 26.0 + 8.0 * hilum, 14.0, 8.0])
        between = np.interp(y, knots, middle).astype(np.float32)[:, None] - side * x[None, :]
        cx, cy, cz = self.heart
        rest = 1.0 - ((z - cz) / (self.heart_half[2] + 3.0)) ** 2
        distance = np.maximum(np.maximum(wall, own), between)
        if rest > 0.0:
            half = (self.heart_half[0] * rest**0.5 + 4.0, self.heart_half[1] * rest**0.5 + 4.0)
            distance = np.maximum(distance, -oval(x, y, (cx, cy), half, 2.0))
        spine = oval(x, y, (0.0, self.spine_y + 4.0), (self.spine_r + 5.0, self.spine_r + 6.0), 2.4)
        distance = np.maximum(distance, -spine)
        cut = oval(x, y, (side * 0.46 * self.wide, -4.0), (0.62 * self.wide, 0.96 * self.deep), 2.0)
        bend = cut / (0.31 * self.wide) + 1.0
        dome = self.base + self.dome[side] * (1.0 - bend) - z
        out: Plane = np.maximum(distance, 0.7 * dome).astype(np.float32)
        return out

    def paint_lung(self, canvas: Canvas, z: float, side: int, covered: Plane) -> None:
        """One lung with its vessels, a gravity gradient and a slow texture."""
        box = canvas.box((side * 0.5 * self.wide, 0.0), (0.56 * self.wide, 1.02 * self.deep))
        x, y = canvas.x[box[1]], canvas.y[box[0]]
        if not x.size or not y.size:
            return
        distance = self.lung_distance(x, y, z, side)
        if self.body.effusion_mm > 0.0 and side == self.wet_side:
            canvas.blend(box, canvas.cover(distance), 12.0)
            down = -y if self.body.prone else y
            distance = np.maximum(distance, (down - 0.95 * self.deep + self.body.effusion_mm)[:, None])
        part = canvas.cover(distance)
        covered[box] = part
        w = self.waves
        gravity = (-1.0 if self.body.prone else 1.0) * 0.35 * y[:, None]
        slow = np.sin(0.06 * x + w[0] + 0.04 * z)[None, :] * np.sin(0.05 * y + w[1])[:, None]
        fine = np.sin(0.35 * x + w[2] + 0.3 * z)[None, :] * np.sin(0.31 * y + w[3] - 0.2 * z)[:, None]
        inside = Canvas(x, y, canvas.edge)
        inside.hu = (self.lung_hu + gravity + 22.0 * slow + 14.0 * fine).astype(np.float32)
        self.vessels[side].paint(inside, inside.hu, z, self.blood - 10.0)
        for centre, half, value in self.nodules:
            inside.ellipsoid(z, centre, half, value)
        canvas.blend(box, part, inside.hu)

    def paint_airway(self, canvas: Canvas, z: float, lungs: dict[int, Plane]) -> None:
        """Trachea and bronchi with their wall; neither belongs to a lung."""
        self.air_tree.paint(canvas, canvas.hu, z, 20.0, grow=1.6)
        self.air_tree.paint(canvas, canvas.hu, z, AIR + 15.0)
        main = Tubes(self.air_tree.start[:3], self.air_tree.end[:3], self.air_tree.radius[:3])
        for covered in lungs.values():
            main.paint(canvas, covered, z, 0.0, grow=1.6)

    def paint_bones(self, canvas: Canvas, z: float) -> None:
        """Spine everywhere; ribs, sternum, shoulder girdle and pelvis at their heights."""
        r, y = self.spine_r, self.spine_y
        disc = np.cos(2.0 * np.pi * z / (24.0 * self.body.size)) > 0.8
        canvas.ellipse((0.0, y), (r, r * 0.85), 90.0 if disc else BONE)
        if not disc:
            canvas.ellipse((0.0, y), (r - 2.5, r * 0.85 - 2.5), 190.0)
        canvas.ellipse((0.0, y + r + 8.0), (15.0, 12.0), 350.0)
        canvas.ellipse((0.0, y + r + 4.0), (9.0, 8.0), 25.0)
        canvas.ellipse((0.0, y + r + 24.0), (4.0, 14.0), 330.0)
        if self.base - 25.0 < z < self.apex + 5.0:
            self.paint_ribs(canvas, z)
        if self.base + 60.0 < z < self.apex - 25.0:
            grow = 0.5 + 0.5 * self.taper(z, 0.45)
            canvas.ellipse((0.0, -self.deep * grow - 7.0), (17.0, 5.5), 330.0)
            canvas.ellipse((0.0, -self.deep * grow - 7.0), (15.0, 3.5), 120.0)
        for side in (-1.0, 1.0):
            if self.apex - 120.0 < z < self.apex + 15.0:
                canvas.ellipse((side * (self.wide * 0.8), self.deep * 0.86), (34.0, 4.5), BONE)
            canvas.ellipsoid(
                z, (side * self.wide * 0.62, -0.3 * self.deep, self.apex), (62.0, 8.0, 8.0), BONE
            )
            canvas.ellipsoid(z, (side * (self.wide + 22.0), 8.0, self.apex + 2.0), (23.0, 22.0, 24.0), 300.0)
            canvas.ellipsoid(z, (side * 92.0, 25.0, self.base - 320.0), (55.0, 45.0, 75.0), BONE)
            canvas.ellipsoid(z, (side * 78.0, 5.0, self.base - 320.0), (54.0, 44.0, 78.0), 40.0)

    def paint_ribs(self, canvas: Canvas, z: float) -> None:
        """Ribs along the wall of the cavity, falling from the spine to the front."""
        grow = 0.5 + 0.5 * self.taper(z, 0.45)
        half = (self.wide * grow + 4.0, self.deep * grow + 4.0)
        box = canvas.box((0.0, 0.0), (half[0] + 8.0, half[1] + 8.0))
        x, y = canvas.x[box[1]], canvas.y[box[0]]
        if not x.size or not y.size:
            return
        if self._ribs is None or self._ribs[1].shape != canvas.hu.shape:
            angle = np.arctan2(canvas.x[None, :] / self.wide, canvas.y[:, None] / self.deep)
            turn = np.abs(angle) / np.pi
            fall = 85.0 * np.clip(turn, 0.0, 0.72) + 6.0 * np.sign(angle) * turn
            self._ribs = (0, (fall - 70.0 * np.clip(turn - 0.72, 0.0, 1.0)).astype(np.float32))
        fall = self._ribs[1][box]
        pitch = np.float32(27.0 * self.body.size)
        high = (z + fall + 7.0) % pitch - pitch / 2
        across = oval(x, y, (0.0, 0.0), half, self.power)
        span = np.sqrt((high / 5.6) ** 2 + (across / 3.6) ** 2)
        distance = ((span - 1.0) * 3.6).astype(np.float32)
        front = (y[:, None] < -0.72 * self.deep * grow) & (x[None, :] > -9e3)
        canvas.blend(box, canvas.cover(distance), np.where(front, 110.0, 520.0).astype(np.float32))
        canvas.blend(box, canvas.cover(distance + 1.6), np.where(front, 100.0, 220.0).astype(np.float32))

    def paint_arms(self, canvas: Canvas, z: float) -> None:
        """Arms beside the trunk or beside the head."""
        up = self.body.arms == "up"
        if (up and z < self.apex + 12.0) or (not up and not self.base - 330.0 < z < self.apex - 15.0):
            return
        for side in (-1.0, 1.0):
            centre = (side * (self.wide + 34.0 if up else self.wide + 82.0 + self.body.fat_mm), 12.0)
            radius = 38.0 + 0.5 * self.body.fat_mm
            for r, value in ((radius, FAT), (radius - 0.5 * self.body.fat_mm - 2.0, MUSCLE)):
                canvas.ellipse(centre, (r, r), value)
            canvas.ellipse(centre, (11.0, 11.0), 900.0)
            canvas.ellipse(centre, (6.0, 6.0), -30.0)
