"""Compiled: the racing line in a class with state, as many leagues' winners had it."""
import math


class Reward:
    def __init__(self, verbose=False):
        self.first_racingpoint_index = 0
        self.verbose = verbose

    def reward_function(self, params):

        def dist_2_points(x1, x2, y1, y2):
            return abs(abs(x1 - x2) ** 2 + abs(y1 - y2) ** 2) ** 0.5

        def closest_2_racing_points_index(racing_coords, car_coords):
            distances = []
            for i in range(len(racing_coords)):
                distance = dist_2_points(x1=racing_coords[i][0], x2=car_coords[0],
                                         y1=racing_coords[i][1], y2=car_coords[1])
                distances.append(distance)
            closest_index = distances.index(min(distances))
            distances_no_closest = distances.copy()
            distances_no_closest[closest_index] = 999
            second_closest_index = distances_no_closest.index(min(distances_no_closest))
            return [closest_index, second_closest_index]

        def dist_to_racing_line(closest_coords, second_closest_coords, car_coords):
            a = abs(dist_2_points(x1=closest_coords[0], x2=second_closest_coords[0],
                                  y1=closest_coords[1], y2=second_closest_coords[1]))
            b = abs(dist_2_points(x1=car_coords[0], x2=closest_coords[0],
                                  y1=car_coords[1], y2=closest_coords[1]))
            c = abs(dist_2_points(x1=car_coords[0], x2=second_closest_coords[0],
                                  y1=car_coords[1], y2=second_closest_coords[1]))
            try:
                distance = abs(-(a**4) + 2*(a**2)*(b**2) + 2*(a**2)*(c**2) -
                               (b**4) + 2*(b**2)*(c**2) - (c**4))**0.5 / (2*a)
            except:
                distance = b
            return distance

        def projected_time(first_index, closest_index, step_count, times_list):
            current_actual_time = (step_count-1) / 15
            indexes_traveled = indexes_cyclical(first_index, closest_index, len(times_list))
            current_expected_time = sum([times_list[i] for i in indexes_traveled])
            total_expected_time = sum(times_list)
            try:
                projected_time = (current_actual_time/current_expected_time) * total_expected_time
            except:
                projected_time = 9999
            return projected_time

        def indexes_cyclical(start, end, array_len):
            if end < start:
                end += array_len
            return [index % array_len for index in range(start, end)]

        racing_track = [[3.05973, 0.68265, 4.0, 0.03654], [3.2095, 0.68313, 4.0, 0.03744],
                        [3.35927, 0.68336, 3.9, 0.0384], [3.50903, 0.6834, 3.8, 0.03941],
                        [3.65879, 0.68328, 3.6, 0.0416], [3.80854, 0.68304, 3.4, 0.04404],
                        [3.95827, 0.68273, 3.1, 0.0483], [4.10799, 0.68241, 2.9, 0.05163],
                        [4.2577, 0.68221, 2.7, 0.05545], [4.40741, 0.68233, 2.5, 0.05988]]
        all_wheels_on_track = params['all_wheels_on_track']
        x = params['x']
        y = params['y']
        progress = params['progress']
        steps = params['steps']
        speed = params['speed']
        track_width = params['track_width']
        is_offtrack = params['is_offtrack']

        closest_index, second_closest_index = closest_2_racing_points_index(racing_track, [x, y])
        optimals = racing_track[closest_index]
        optimals_second = racing_track[second_closest_index]
        if self.verbose == True:
            self.first_racingpoint_index = 0
        if steps == 2:
            self.first_racingpoint_index = closest_index

        reward = 1
        DISTANCE_MULTIPLE = 1
        dist = dist_to_racing_line(optimals[0:2], optimals_second[0:2], [x, y])
        distance_reward = max(1e-3, 1 - (dist/(track_width*0.5)))
        reward += distance_reward * DISTANCE_MULTIPLE
        SPEED_DIFF_NO_REWARD = 1
        speed_diff = abs(optimals[2]-speed)
        if speed_diff <= SPEED_DIFF_NO_REWARD:
            speed_reward = (1 - (speed_diff/(SPEED_DIFF_NO_REWARD))**2)**2
        else:
            speed_reward = 0
        reward += speed_reward * 2
        times_list = [row[3] for row in racing_track]
        projected = projected_time(self.first_racingpoint_index, closest_index, steps, times_list)
        try:
            steps_prediction = projected * 15 + 1
            reward_prediction = max(1e-3, (-1.5*(27-9)/(27-18))*(steps_prediction-(18*15+1)))
            steps_reward = min(1.5, reward_prediction / steps_prediction)
        except:
            steps_reward = 0
        reward += steps_reward
        if is_offtrack == True or all_wheels_on_track == False:
            reward = 1e-3
        if progress == 100:
            finish_reward = max(1e-3, (-10*(18-9)/(9-18))*(steps-18*15))
        else:
            finish_reward = 0
        reward += finish_reward
        if self.verbose == True:
            print("Closest index: %i" % closest_index)
            print("=== Distance reward (w/out multiple): %f ===" % (distance_reward))
        return float(reward)


reward_object = Reward(verbose=False)


def reward_function(params):
    return reward_object.reward_function(params)
